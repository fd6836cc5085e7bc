//! `key=value` words.

use std::collections::BTreeMap;

/// A label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Before the first `=`.
    pub(crate) key: String,
    /// After it; may be empty.
    pub(crate) value: String,
}

/// A text without a key or without `=`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no label; write it as key=value")]
pub(crate) struct BadLabel(String);

impl std::str::FromStr for Label {
    type Err = BadLabel;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Label { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(BadLabel(text.to_owned())),
        }
    }
}

/// The labels as a map; a later one of the same key wins.
pub(crate) fn map(labels: &[Label]) -> BTreeMap<String, String> {
    labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect()
}

/// What `set` changes of an object's labels.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LabelChanges {
    /// Set a label; may be given several times
    #[arg(long = "metadata", value_name = "KEY=VALUE")]
    set: Vec<Label>,
    /// Remove a label; may be given several times
    #[arg(long = "unset", value_name = "KEY")]
    unset: Vec<String>,
}

impl LabelChanges {
    /// The labels after the change; None when nothing changes.
    pub(crate) fn applied_to(&self, labels: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
        if self.set.is_empty() && self.unset.is_empty() {
            return None;
        }
        let mut changed = labels.clone();
        changed.extend(map(&self.set));
        changed.retain(|key, _| !self.unset.contains(key));
        Some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_split_at_its_first_equals_sign() {
        let label: Label = "a=b=c".parse().unwrap();
        assert_eq!((label.key.as_str(), label.value.as_str()), ("a", "b=c"));
        assert!("a".parse::<Label>().is_err());
        assert!("=b".parse::<Label>().is_err());
    }

    #[test]
    fn labels_not_named_stay_when_others_change() {
        let before = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let changes = LabelChanges { set: vec!["c=3".parse().unwrap()], unset: vec!["a".to_owned()] };
        let after = changes.applied_to(&before).unwrap();
        assert_eq!(after.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(LabelChanges::default().applied_to(&before), None);
    }
}
