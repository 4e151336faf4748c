//! The measured rows: printed, and written as JSON.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The key for the CPU that other processes took, in percent of the cores; and how much is normal.
const OTHERS: &str = "othersPercentOfCores";
const QUIET: f64 = 5.0;

/// The lower or upper bound of a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

impl Bound {
    fn sign(self) -> char {
        match self {
            Self::AtLeast => '≥',
            Self::AtMost => '≤',
        }
    }
}

/// A row's name and target.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    pub(crate) workload: String,
    pub(crate) unit: &'static str,
    pub(crate) target: Option<(Bound, f64)>,
}

impl Aim {
    pub(crate) fn at_least(workload: &str, target: f64, unit: &'static str) -> Self {
        Self {
            workload: workload.to_owned(),
            unit,
            target: Some((Bound::AtLeast, target)),
        }
    }

    /// A row that is reported without a target.
    pub(crate) fn beside(workload: &str, unit: &'static str) -> Self {
        Self {
            workload: workload.to_owned(),
            unit,
            target: None,
        }
    }

    pub(crate) fn at_most(workload: &str, target: f64, unit: &'static str) -> Self {
        Self {
            workload: workload.to_owned(),
            unit,
            target: Some((Bound::AtMost, target)),
        }
    }
}

#[derive(Serialize)]
struct Row {
    workload: String,
    /// Median of the rounds.
    value: Option<f64>,
    unit: &'static str,
    bound: Option<Bound>,
    target: Option<f64>,
    met: Option<bool>,
    rounds: Vec<f64>,
    /// Why there is no value, or why it does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// All rows.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// A row with one value per round, and an object of additional values.
    pub(crate) fn row(&mut self, aim: &Aim, rounds: Vec<f64>, more: Value) {
        let value = median(&rounds);
        let met = aim.target.map(|(bound, target)| match bound {
            Bound::AtLeast => value >= target,
            Bound::AtMost => value <= target,
        });
        self.push(aim, Some(value), met, rounds, None, more);
    }

    /// The server gave wrong responses, or none.
    pub(crate) fn failed(&mut self, aim: &Aim, problem: &str) {
        self.push(
            aim,
            None,
            aim.target.map(|_| false),
            Vec::new(),
            Some(format!("FAILED: {problem}")),
            json!({}),
        );
    }

    /// There is nothing to measure.
    pub(crate) fn not_measured(&mut self, aim: &Aim, reason: &str) {
        self.push(
            aim,
            None,
            None,
            Vec::new(),
            Some(format!("not measured: {reason}")),
            json!({}),
        );
    }

    fn push(
        &mut self,
        aim: &Aim,
        value: Option<f64>,
        met: Option<bool>,
        rounds: Vec<f64>,
        problem: Option<String>,
        more: Value,
    ) {
        let (bound, target) = aim.target.unzip();
        let more = if let Value::Object(more) = more {
            more
        } else {
            Map::new()
        };
        let row = Row {
            workload: aim.workload.clone(),
            value,
            unit: aim.unit,
            bound,
            target,
            met,
            rounds,
            problem,
            more,
        };
        println!("  {}", row.line());
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether a row failed for a reason other than its number.
    pub(crate) fn has_failures(&self) -> bool {
        self.rows.iter().any(|row| {
            row.problem
                .as_ref()
                .is_some_and(|problem| problem.starts_with("FAILED"))
        })
    }

    /// Prints the table and writes it.
    pub(crate) fn finish(&self, path: &Path, machine: &Value) -> Result<()> {
        println!("\n{:<70} {:>9}            {:>9}", "", "measured", "must be");
        for row in &self.rows {
            println!("{}", row.line());
        }
        std::fs::write(
            path,
            serde_json::to_vec_pretty(&json!({"rows": self.rows, "machine": machine}))?,
        )?;
        let others = self
            .rows
            .iter()
            .filter_map(|row| row.more.get(OTHERS)?.as_f64())
            .fold(0.0, f64::max);
        if others > QUIET {
            println!("\nOther processes took up to {others:.0} % of the cores: these numbers mean little.");
        }
        println!("\nwritten to {}", path.display());
        Ok(())
    }
}

impl Row {
    fn line(&self) -> String {
        let (Some(value), None) = (self.value, &self.problem) else {
            return format!(
                "{:<70} {}",
                self.workload,
                self.problem.as_deref().unwrap_or_default()
            );
        };
        let target = self
            .bound
            .zip(self.target)
            .map(|(bound, target)| format!("{} {target:.1}", bound.sign()));
        let met = self.met.map_or("", |met| if met { "met" } else { "NOT MET" });
        let line = format!(
            "{:<70} {value:>9.2} {:<10} {:>9}  {met}",
            self.workload,
            self.unit,
            target.unwrap_or_default()
        );
        let notes = self
            .more
            .get("note")
            .and_then(Value::as_str)
            .map(|note| format!("\n      {note}"));
        line.trim_end().to_owned() + &notes.unwrap_or_default()
    }
}

/// The middle value, or the mean of the two middle values; 0 without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_judged_by_its_median() {
        let mut table = Table::default();
        table.row(
            &Aim::at_least("fast", 90.0, "%"),
            vec![50.0, 91.0, 95.0],
            json!({}),
        );
        table.row(&Aim::at_most("slow", 1.5, ""), vec![1.0, 2.0], json!({}));
        table.row(&Aim::at_most("late", 1.4, ""), vec![1.0, 2.0], json!({}));
        let met: Vec<_> = table.rows.iter().map(|row| row.met).collect();
        assert_eq!(met, [Some(true), Some(true), Some(false)]);
        assert!(!table.has_failures());
        table.failed(&Aim::at_most("wrong", 1.0, ""), "status 500");
        assert_eq!(table.rows[3].met, Some(false));
        assert!(table.has_failures());
    }
}
