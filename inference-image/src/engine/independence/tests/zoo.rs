//! Well-known networks, as exporters write them.

use super::super::graph::{Graph, Model, datatype};
use super::super::rows_stay_apart;
use super::encoded;
use prost::Message;
use std::path::{Path, PathBuf};

/// The nine `light_*` models of the onnx wheel.
fn topologies() -> Vec<PathBuf> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/venv-sdk/lib");
    let python = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().path();
    let pythons = std::fs::read_dir(&lib).unwrap_or_else(|_| {
        panic!(
            "{} is not there: run inference-image/tests/clients/prepare",
            lib.display()
        )
    });
    let folders = pythons.map(|entry| python(entry).join("site-packages/onnx/backend/test/data/light"));
    let folder = folders.into_iter().find(|folder| folder.exists()).unwrap();
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "onnx"))
        .collect()
}

/// Any number of rows in place of one.
fn free_the_batch(graph: &mut Graph) {
    let is_weight = |name: &str| graph.initializers.iter().any(|weight| weight.name == name);
    for input in graph.inputs.iter_mut().filter(|input| !is_weight(&input.name)) {
        let shape = input
            .r#type
            .as_mut()
            .unwrap()
            .tensor
            .as_mut()
            .unwrap()
            .shape
            .as_mut()
            .unwrap();
        shape.dims[0].value = None;
    }
    let reshapes = graph.nodes.iter().filter(|node| node.operator == "Reshape");
    let shapes: Vec<String> = reshapes.map(|node| node.inputs[1].clone()).collect();
    for shape in graph
        .initializers
        .iter_mut()
        .filter(|tensor| shapes.contains(&tensor.name))
    {
        assert_eq!(shape.data_type, datatype::INT64);
        let raw = shape.raw.as_ref().unwrap();
        if raw[..8] == 1_i64.to_le_bytes() {
            shape.raw = Some([&(-1_i64).to_le_bytes(), &raw[8..]].concat().into());
        }
    }
}

// They are what the server is for, and quantised they are up to twice as fast in batches.
#[test]
fn nine_well_known_topologies_keep_their_rows_apart() {
    let files = topologies();
    assert_eq!(files.len(), 9, "{files:?}");
    for file in files {
        let mut model = Model::decode(std::fs::read(&file).unwrap().as_slice()).unwrap();
        let problem = rows_stay_apart(&encoded(&model)).unwrap_err();
        assert!(problem.contains("no first dimension of any size"), "{problem}");
        free_the_batch(model.graph.as_mut().unwrap());
        assert_eq!(rows_stay_apart(&encoded(&model)), Ok(()), "{}", file.display());
    }
}
