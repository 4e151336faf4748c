//! The table of results, for people and as `target/bench/operator.json`.

use serde::Serialize;
use serde_json::json;
use std::{fs, path::Path};

#[derive(Serialize)]
struct Row {
    workload: String,
    value: f64,
    unit: &'static str,
    target: Option<f64>,
    met: Option<bool>,
}

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn row(
        &mut self,
        workload: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Option<f64>,
    ) {
        self.0.push(Row {
            workload: workload.into(),
            value,
            unit,
            target,
            met: target.map(|target| value <= target),
        });
    }

    pub(crate) fn finish(&self) {
        println!("\n{:<50} {:>10}      {:>10}", "", "measured", "at most");
        for row in &self.0 {
            let target = row
                .target
                .map(|target| format!("{target:.1}"))
                .unwrap_or_default();
            let met = row.met.map_or("", |met| if met { "met" } else { "NOT MET" });
            println!(
                "{:<50} {:>10.2} {:<4} {target:>10}  {met}",
                row.workload, row.value, row.unit
            );
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/operator.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            &path,
            serde_json::to_vec_pretty(&json!({"rows": self.0})).unwrap(),
        )
        .unwrap();
        println!("\nwritten to target/bench/operator.json");
    }
}
