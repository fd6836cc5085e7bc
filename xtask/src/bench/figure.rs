//! One measured figure: a JSON object on one line, its most telling fields first.

use std::fmt;

use serde_json::{Map, Value};

use super::goals::Verdict;

/// Fields that come first, in this order; the others follow by name.
const FIRST: &[&str] = &["name", "value", "unit", "yardstick", "yardstick_value", "ratio", "goals"];

/// A figure as its bench printed it.
#[derive(Debug, Clone)]
pub(super) struct Figure(Map<String, Value>);

impl Figure {
    /// Reads a line; None when it is no figure but words.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_str(line.trim()) else { return None };
        let figure = Self(fields);
        figure.number("value")?;
        (!figure.name().is_empty()).then_some(figure)
    }

    /// From fields that are known here.
    pub(super) fn new(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    pub(super) fn name(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, field: &str) -> Option<f64> {
        self.0.get(field).and_then(Value::as_f64)
    }

    /// Notes the goals this figure was held against.
    pub(super) fn judged(&mut self, goals: &[Verdict]) {
        if !goals.is_empty() {
            let goals = goals.iter().map(|goal| Value::String(goal.to_string())).collect();
            self.0.insert("goals".to_owned(), Value::Array(goals));
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = FIRST.iter().filter_map(|name| self.0.get_key_value(*name));
        let rest = self.0.iter().filter(|(name, _)| !FIRST.contains(&name.as_str()));
        formatter.write_str("{")?;
        for (number, (name, value)) in first.chain(rest).enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(formatter, "{comma}{}:{value}", Value::String(name.clone()))?;
        }
        formatter.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_name_and_value_first_and_stays_json() {
        let figure = Figure::parse(r#"{"clients":64,"name":"creates","unit":"/s","value":2.5}"#).unwrap();
        let line = figure.to_string();
        assert_eq!(line, r#"{"name":"creates","value":2.5,"unit":"/s","clients":64}"#);
        assert!(serde_json::from_str::<Value>(&line).is_ok());
    }

    #[test]
    fn words_are_no_figure() {
        for line in ["", "warming up", "{}", r#"{"name":"x"}"#, r#"{"value":1}"#, "[1]"] {
            assert!(Figure::parse(line).is_none(), "{line}");
        }
    }
}
