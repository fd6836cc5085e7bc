//! Flavors: sizes of servers, and which one is the cheapest that will do.
//!
//! Cheapest is by price where a list of prices is given, else by cores, memory and disk in this order;
//! names and ids break what is left, so the same flavors always give the same answer. A flavor without a
//! price comes after all that have one. Deliberately absent: the disk as a condition, since a server that
//! needs more boots from a volume.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use crate::space::Cores;
use crate::{Error, Result};

mod list;

pub use list::List;

/// A size of server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flavor {
    /// The cloud's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Cores.
    pub cores: u32,
    /// Memory in MB.
    pub ram_mb: u64,
    /// Disk in GB.
    pub disk_gb: u64,
}

/// What a server must at least have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Cores.
    pub cores: Cores,
    /// Memory in MB.
    pub ram_mb: u64,
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} core(s), {} MB", self.cores, self.ram_mb)
    }
}

/// A regular expression that may match anywhere in a name.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`Error::BadPattern`]; also for an empty one, which is nearly always a slip of the pen. For every
    /// flavor say `.` or give no pattern.
    pub fn parse(pattern: &str) -> Result<Self> {
        let bad = |why: String| Error::BadPattern { pattern: pattern.to_owned(), why };
        if pattern.is_empty() {
            return Err(bad("it is empty; `.` matches every name".to_owned()));
        }
        Regex::new(pattern).map(Self).map_err(|error| bad(error.to_string()))
    }

    /// Reads a pattern where none means every flavor.
    ///
    /// # Errors
    /// [`Error::BadPattern`].
    pub fn parse_or_all(pattern: &str) -> Result<Option<Self>> {
        if pattern.is_empty() { Ok(None) } else { Self::parse(pattern).map(Some) }
    }

    /// Whether a name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// Flavors that run on the same machines: those that match any of the patterns.
#[derive(Debug, Clone)]
pub struct Set(Vec<Pattern>);

impl Set {
    /// A set of these patterns.
    ///
    /// # Errors
    /// [`Error::BadPattern`] for one that cannot be read, and for none.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let patterns = patterns.into_iter().map(Pattern::parse).collect::<Result<Vec<_>>>()?;
        if patterns.is_empty() {
            let why = "a set needs at least one".to_owned();
            return Err(Error::BadPattern { pattern: String::new(), why });
        }
        Ok(Self(patterns))
    }

    /// Whether a flavor is in it.
    #[must_use]
    pub fn contains(&self, flavor: &Flavor) -> bool {
        self.0.iter().any(|pattern| pattern.matches(&flavor.name))
    }
}

/// Reads sets as a user writes them: `a,b;c,d` is two sets of two patterns. No text is no set.
///
/// # Errors
/// [`Error::BadPattern`]; also for an empty place, as after the last `;` of `a;`.
pub fn parse_sets(text: &str) -> Result<Vec<Set>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let set = |part: &str| Set::new(part.split(','));
    text.split(';').map(set).collect::<Result<_>>().map_err(|error| match error {
        Error::BadPattern { pattern, why } if pattern.is_empty() => {
            Error::BadPattern { pattern: text.to_owned(), why: format!("a part of it cannot be used: {why}") }
        }
        other => other,
    })
}

/// What flavors cost in an hour, by name or id.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// The currency, as it is to be shown.
    pub currency: String,
    /// The price of an hour.
    pub per_hour: BTreeMap<String, f64>,
}

impl PriceList {
    /// Reads a list from JSON: `{"currency": "EUR", "per_hour": {"m1.small": 0.03}}`.
    ///
    /// # Errors
    /// [`Error::BadInput`] for other JSON, and for a price below 0.
    pub fn parse(json: &str) -> Result<Self> {
        let bad = |value: String, why: String| Error::BadInput { what: "the price list", value, why };
        let list: Self =
            serde_json::from_str(json).map_err(|error| bad("JSON".to_owned(), error.to_string()))?;
        match list.per_hour.iter().find(|(_, price)| !price.is_finite() || **price < 0.0) {
            Some((name, _)) => Err(bad(name.clone(), "a price is a number from 0 up".to_owned())),
            None => Ok(list),
        }
    }

    /// The price of an hour; an entry by id counts before one by name.
    #[must_use]
    pub fn price(&self, flavor: &Flavor) -> Option<f64> {
        self.per_hour.get(&flavor.id).or_else(|| self.per_hour.get(&flavor.name)).copied()
    }
}

/// What is asked of a flavor.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The least it must have.
    pub need: Need,
    /// What its name must match; `None` is every name.
    pub pattern: Option<&'a Pattern>,
    /// Prices, where they are known.
    pub prices: Option<&'a PriceList>,
}

impl Wanted<'_> {
    /// The cheapest flavor that will do.
    ///
    /// # Errors
    /// [`Error::NoFlavor`].
    pub fn cheapest<'f>(&self, flavors: impl IntoIterator<Item = &'f Flavor>) -> Result<&'f Flavor> {
        let will_do = flavors.into_iter().filter(|flavor| self.will_do(flavor));
        will_do.min_by(|a, b| self.compare(a, b)).ok_or_else(|| Error::NoFlavor {
            need: self.need.to_string(),
            pattern: self.pattern.map(|pattern| pattern.0.to_string()).unwrap_or_default(),
        })
    }

    /// The cheapest flavor of each set, in the order of the sets; `None` where a set has none. Without
    /// sets it is the cheapest of all, alone.
    ///
    /// # Errors
    /// [`Error::NoFlavor`], only without sets.
    pub fn cheapest_of_each<'f>(
        &self,
        flavors: &'f [Flavor],
        sets: &[Set],
    ) -> Result<Vec<Option<&'f Flavor>>> {
        if sets.is_empty() {
            return self.cheapest(flavors).map(|flavor| vec![Some(flavor)]);
        }
        let of_set = |set: &Set| self.cheapest(flavors.iter().filter(|flavor| set.contains(flavor))).ok();
        Ok(sets.iter().map(of_set).collect())
    }

    /// The cheapest of all, then the cheapest outside the set it is in, and so on: the older order. It ends
    /// when nothing will do, after a flavor that is in no set, or with as many flavors as there are sets.
    /// No match at all is an empty answer. Without sets it is the cheapest of all, alone.
    #[must_use]
    pub fn cheapest_first<'f>(&self, flavors: &'f [Flavor], sets: &[Set]) -> Vec<&'f Flavor> {
        let mut left: Vec<&Set> = sets.iter().collect();
        let mut rest: Vec<&Flavor> = flavors.iter().collect();
        let mut chosen = Vec::new();
        while let Ok(flavor) = self.cheapest(rest.iter().copied()) {
            chosen.push(flavor);
            let Some(position) = left.iter().position(|set| set.contains(flavor)) else { break };
            let set = left.remove(position);
            if left.is_empty() {
                break;
            }
            rest.retain(|flavor| !set.contains(flavor));
        }
        chosen
    }

    fn will_do(&self, flavor: &Flavor) -> bool {
        Cores::whole(flavor.cores) >= self.need.cores
            && flavor.ram_mb >= self.need.ram_mb
            && self.pattern.is_none_or(|pattern| pattern.matches(&flavor.name))
    }

    fn compare(&self, a: &Flavor, b: &Flavor) -> Ordering {
        // Without a price it is the last resort.
        let price = |flavor| self.prices.and_then(|list| list.price(flavor)).unwrap_or(f64::INFINITY);
        let size = |flavor: &Flavor| (flavor.cores, flavor.ram_mb, flavor.disk_gb);
        let by_size = price(a).total_cmp(&price(b)).then_with(|| size(a).cmp(&size(b)));
        by_size.then_with(|| (&a.name, &a.id).cmp(&(&b.name, &b.id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavor(name: &str, cores: u32, ram_mb: u64) -> Flavor {
        Flavor { id: format!("id-{name}"), name: name.to_owned(), cores, ram_mb, disk_gb: 1 }
    }

    fn wanted<'a>(pattern: Option<&'a Pattern>, prices: Option<&'a PriceList>) -> Wanted<'a> {
        Wanted { need: Need { cores: Cores::ZERO, ram_mb: 1 }, pattern, prices }
    }

    fn names(flavors: &[&Flavor]) -> Vec<String> {
        flavors.iter().map(|flavor| flavor.name.clone()).collect()
    }

    #[test]
    fn equal_flavors_are_told_apart_by_name_whatever_their_order() {
        let mut flavors = [flavor("b", 1, 1), flavor("a", 1, 1), flavor("c", 1, 1)];
        for _ in 0..3 {
            flavors.rotate_left(1);
            assert_eq!(wanted(None, None).cheapest(&flavors).unwrap().name, "a");
        }
    }

    #[test]
    fn a_price_counts_more_than_size_and_none_counts_last() {
        let flavors = [flavor("small", 1, 1), flavor("spot", 8, 64), flavor("unpriced", 1, 1)];
        let json = r#"{"currency":"EUR","per_hour":{"small":0.03,"id-spot":0.01}}"#;
        let prices = PriceList::parse(json).unwrap();
        assert_eq!(wanted(None, Some(&prices)).cheapest(&flavors).unwrap().name, "spot");
        let pattern = Pattern::parse("^(small|unpriced)$").unwrap();
        assert_eq!(wanted(Some(&pattern), Some(&prices)).cheapest(&flavors).unwrap().name, "small");
    }

    #[test]
    fn a_price_list_that_would_mislead_is_refused() {
        for json in [r#"{"currency":"EUR","per_hour":{"a":-1}}"#, r#"{"per_hour":{}}"#, "[]", ""] {
            assert!(matches!(PriceList::parse(json), Err(Error::BadInput { .. })), "{json}");
        }
    }

    #[test]
    fn the_older_order_is_cheapest_first_and_one_of_each_set() {
        let flavors = [flavor("a1", 1, 1), flavor("a2", 2, 1), flavor("b3", 3, 1), flavor("b4", 4, 1)];
        let sets = parse_sets("^b;^a").unwrap();
        assert_eq!(names(&wanted(None, None).cheapest_first(&flavors, &sets)), ["a1", "b3"]);
        let three = parse_sets("^b;^a;^zz").unwrap();
        assert_eq!(names(&wanted(None, None).cheapest_first(&flavors, &three)), ["a1", "b3"]);
        let none = Pattern::parse("^zz").unwrap();
        assert!(wanted(Some(&none), None).cheapest_first(&flavors, &sets).is_empty());
    }

    #[test]
    fn the_older_order_ends_at_a_flavor_of_no_set() {
        let flavors = [flavor("x", 1, 1), flavor("a", 2, 1), flavor("b", 3, 1)];
        let sets = parse_sets("a;b").unwrap();
        assert_eq!(names(&wanted(None, None).cheapest_first(&flavors, &sets)), ["x"]);
    }

    #[test]
    fn an_empty_place_among_the_sets_is_refused_by_showing_the_whole_text() {
        for text in ["m1;", ";m1", "a,;b", ","] {
            let error = parse_sets(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        assert!(parse_sets("").unwrap().is_empty());
    }
}
