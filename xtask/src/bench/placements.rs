//! The core's own measurement of placements, put into this command's form.
//!
//! The core's example knows no yardsticks; here each size is set beside the smallest one of the same run.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::figure::Figure;

const READ: &str = "decide and apply in memory on one core, address and job included, hosts of four sizes 80 % \
                    full, creates and deletes mixed; answers checked against a search over all on a sample";

/// Runs the example and hands over its figures.
pub(super) fn measure(each: &mut dyn FnMut(Figure)) -> Result<()> {
    let mut smallest = None;
    super::lines("haar-core", "placements", &mut |line| {
        let figure = figure(line, smallest)?;
        smallest = smallest.or(figure.number("value"));
        each(figure);
        Some(())
    })
}

/// The example's line with name, value and yardstick; None when it is no figure.
fn figure(line: &str, smallest: Option<f64>) -> Option<Figure> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(line) else { return None };
    let rate = fields.remove("placements_per_second")?.as_f64()?;
    let added = json!({ "name": "placements", "value": rate, "unit": "placements/s", "read": READ });
    fields.extend(added.as_object().cloned().unwrap_or_default());
    fields.extend(smallest.map(|smallest| beside(rate, smallest)).unwrap_or_default());
    Some(Figure::new(fields))
}

fn beside(rate: f64, smallest: f64) -> Map<String, Value> {
    let fields = json!({
        "yardstick": "the fewest hypervisors of this run", "yardstick_value": smallest,
        "ratio": (rate / smallest * 100.0).round() / 100.0,
    });
    fields.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cores_line_becomes_a_figure_beside_the_smallest() {
        let line = r#"{"hypervisors":10000,"guests":5,"placements_per_second":30000,"checked":2}"#;
        let figure = figure(line, Some(60_000.0)).unwrap();
        assert_eq!((figure.name(), figure.number("value")), ("placements", Some(30_000.0)));
        assert_eq!((figure.number("hypervisors"), figure.number("ratio")), (Some(10_000.0), Some(0.5)));
        assert!(super::figure("warming up", None).is_none());
    }
}
