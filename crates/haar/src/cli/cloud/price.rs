//! What servers cost in an hour, where a list of prices is given.

use std::path::PathBuf;

use haar_cloud::flavor::{Flavor, PriceList};

use crate::cli::failure::Failure;

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PriceWords {
    /// What flavors cost: a file such as {"currency": "EUR", "per_hour": {"m1.small": 0.03}}
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

impl PriceWords {
    /// Reads the list, if one was named.
    pub(super) fn load(&self) -> Result<Option<PriceList>, Failure> {
        let Some(path) = &self.prices else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::local(format!("cannot read the prices in {}", path.display()), error)
        })?;
        Ok(Some(PriceList::parse(&text)?))
    }
}

/// The price of an hour for a person: `0.030 EUR`; a dash where the list has none.
pub(super) fn shown(prices: &PriceList, flavor: &Flavor) -> String {
    prices.price(flavor).map_or("-".to_owned(), |price| format!("{price:.3} {}", prices.currency))
}

/// What several servers cost in an hour, and how many of them have no price; `None` is a flavor that is not known.
pub(super) fn sum<'a>(prices: &PriceList, flavors: impl IntoIterator<Item = Option<&'a Flavor>>) -> String {
    let (mut total, mut unknown) = (0.0, 0);
    for flavor in flavors {
        match flavor.and_then(|flavor| prices.price(flavor)) {
            Some(price) => total += price,
            None => unknown += 1,
        }
    }
    let rest = if unknown == 0 { String::new() } else { format!(", and {unknown} without a price") };
    format!("{total:.3} {} in an hour{rest}", prices.currency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_says_what_it_does_not_know() {
        let flavor =
            |name: &str| Flavor { id: name.into(), name: name.into(), cores: 1, ram_mb: 1, disk_gb: 1 };
        let prices = PriceList::parse(r#"{"currency": "EUR", "per_hour": {"a": 0.03, "b": 0.5}}"#).unwrap();
        let (a, b, c) = (flavor("a"), flavor("b"), flavor("c"));
        assert_eq!(sum(&prices, [Some(&a), Some(&a), Some(&b)]), "0.560 EUR in an hour");
        assert_eq!(sum(&prices, [Some(&a), Some(&c)]), "0.030 EUR in an hour, and 1 without a price");
        assert_eq!(sum(&prices, [Some(&a), None]), "0.030 EUR in an hour, and 1 without a price");
        assert_eq!((shown(&prices, &a).as_str(), shown(&prices, &c).as_str()), ("0.030 EUR", "-"));
    }
}
