//! Sizes as people write them: `2g`, `512m`, `10GiB`, `1T`. A plain number is refused: one may mean GiB, and another MiB.

/// Mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSize {
    /// It is not written as one.
    #[error("`{0}` is no size; write it as 512m, 2g, 1.5g, 10GiB or 1T")]
    Unreadable(String),
    /// It may mean anything.
    #[error("`{0}` has no unit; write {0}G for GiB or {0}M for MiB")]
    NoUnit(String),
}

impl std::str::FromStr for Size {
    type Err = BadSize;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadSize::Unreadable(text.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let mib_per_unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" if !number.is_empty() && number.parse::<f64>().is_ok() => {
                return Err(BadSize::NoUnit(text.trim().to_owned()));
            }
            "m" | "mib" | "mb" => 1,
            "g" | "gib" | "gb" => 1 << 10,
            "t" | "tib" | "tb" => 1 << 20,
            _ => return Err(bad()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || part.len() > 3 || number.ends_with('.') {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let thousandths: u64 =
            if part.is_empty() { 0 } else { format!("{part:0<3}").parse().map_err(|_| bad())? };
        let scaled = thousandths * mib_per_unit;
        let exact = scaled.is_multiple_of(1000) || mib_per_unit > 1;
        let mib = whole.checked_mul(mib_per_unit).and_then(|mib| mib.checked_add(scaled / 1000));
        match mib {
            Some(mib) if exact => Ok(Size(mib)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit() {
        let mib = |text: &str| text.parse::<Size>().map(|size| size.0);
        for (text, expected) in [
            ("512m", 512),
            ("2g", 2048),
            ("2G", 2048),
            ("1.5g", 1536),
            ("10GiB", 10_240),
            ("10 GiB", 10_240),
            ("1T", 1 << 20),
            ("0.5t", 1 << 19),
        ] {
            assert_eq!(mib(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "g",
            ".",
            "2x",
            "-1",
            "-1g",
            ".5g",
            "1.g",
            "1.2345g",
            "1.5m",
            "99999999999999999999t",
            "2 g b",
        ] {
            assert_eq!(mib(bad), Err(BadSize::Unreadable(bad.to_owned())), "{bad}");
        }
        for bare in ["10", "1024", "1.5"] {
            let said = mib(bare).unwrap_err().to_string();
            assert!(said.contains(&format!("{bare}G")) && said.contains(&format!("{bare}M")), "{said}");
        }
    }
}
