#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use serde_json::{Value, json};

const IMAGE: &str = "application/vnd.oci.image.config.v1+json";
const ORAS: &str = "application/vnd.oci.empty.v1+json";
const MODEL: &str = "application/vnd.cncf.model.config.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

fn layer(media_type: &str, annotations: Value) -> Value {
    let digest = format!("sha256:{:064x}", 7);
    json!({"mediaType": media_type, "size": 3, "digest": digest, "annotations": annotations})
}

fn titled(title: &str) -> Value {
    layer(TAR, json!({TITLE: title}))
}

fn found(config: &str, layers: &[Value]) -> Result<(Vec<Object>, Form), FetchError> {
    let config = layer(config, json!({}));
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    objects(
        "oci://ghcr.io/models/x:1",
        &serde_json::from_value(manifest).unwrap(),
    )
}

fn names(config: &str, layers: &[Value]) -> (Vec<String>, Form) {
    let (objects, form) = found(config, layers).unwrap();
    (objects.into_iter().map(|object| object.name).collect(), form)
}

/// Without it, a file of an upper layer could be hidden by one of a lower.
#[test]
fn the_layers_of_an_image_are_archives_in_their_order() {
    let layers = [
        layer(TAR, json!({TITLE: "ignored"})),
        layer(GZIP, json!({})),
        layer("application/vnd.oci.image.layer.v1.tar+zstd", json!({})),
        layer("application/vnd.docker.image.rootfs.diff.tar.gzip", json!({})),
    ];
    let (names, form) = names(IMAGE, &layers);
    assert_eq!(names, ["0000.tar", "0001.tar.gz", "0002.tar.zst", "0003.tar.gz"]);
    assert_eq!(form, Form::Layers);
}

/// Without it, what `oras push model.onnx model.yaml` makes is unpacked as if it were an archive: its default media type
/// is the one of an image's layer.
#[test]
fn the_files_of_oras_have_their_titles_whatever_their_media_type() {
    let (names, form) = names(
        ORAS,
        &[
            titled("model.yaml"),
            titled("./extra/labels.txt"),
            titled("model.onnx"),
        ],
    );
    assert_eq!(names, ["extra/labels.txt", "model.onnx", "model.yaml"]);
    assert_eq!(form, Form::Files);
}

/// Without it, a folder of ORAS is one file.
#[test]
fn a_folder_of_oras_is_an_archive_beside_files() {
    let folder = layer(GZIP, json!({TITLE: "extra", UNPACK: "true"}));
    let (names, form) = names(ORAS, &[titled("model.onnx"), folder]);
    assert_eq!(names, ["model.onnx", "0001.tar.gz"]);
    assert_eq!(form, Form::Layers);
}

/// Without it, one of ModelPack's ways to keep a file cannot be read.
#[test]
fn the_layers_of_model_pack_are_what_their_media_types_say() {
    let pack = |kind: &str, path: &str| {
        layer(
            &format!("application/vnd.cncf.model.{kind}"),
            json!({FILE_PATHS[0]: path}),
        )
    };
    let (files, form) = names(
        MODEL,
        &[
            pack("weight.v1.raw", "model.onnx"),
            pack("weight.config.v1.raw", "model.yaml"),
        ],
    );
    assert_eq!(
        (files, form),
        (
            vec!["model.onnx".to_owned(), "model.yaml".to_owned()],
            Form::Files
        )
    );
    let layers = [
        pack("weight.v1.tar", "model.onnx"),
        pack("weight.config.v1.tar+gzip", "model.yaml"),
        pack("doc.v1.tar+zstd", "README.md"),
        pack("weight.v1.raw", "model.onnx_data"),
    ];
    let (files, form) = names(MODEL, &layers);
    assert_eq!(
        files,
        ["0000.tar", "0001.tar.gz", "0002.tar.zst", "model.onnx_data"]
    );
    assert_eq!(form, Form::Layers);
    let earlier = layer(
        "application/vnd.cnai.model.weight.v1.raw",
        json!({FILE_PATHS[1]: "model.onnx"}),
    );
    assert_eq!(names(MODEL, &[earlier]).0, ["model.onnx"]);
}

/// Without it, each of these is a package with something missing, or something somewhere else.
#[test]
fn layers_that_cannot_be_fetched_are_refused_with_a_sentence() {
    let mut elsewhere = layer(GZIP, json!({}));
    elsewhere["urls"] = json!(["https://example.com/layer"]);
    let mut sha512 = titled("model.onnx");
    sha512["digest"] = json!(format!("sha512:{:0128x}", 7));
    for (config, layers, part) in [
        (
            IMAGE,
            vec![layer(
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                json!({}),
            )],
            "outside of the registry",
        ),
        (
            IMAGE,
            vec![layer(
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                json!({}),
            )],
            "outside of the registry",
        ),
        (IMAGE, vec![elsewhere], "outside of the registry"),
        (
            IMAGE,
            vec![layer(
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                json!({}),
            )],
            "encrypted layer",
        ),
        (
            IMAGE,
            vec![layer("application/vnd.oci.image.layer.v1.squashfs", json!({}))],
            "is not a tar file",
        ),
        (ORAS, vec![sha512], "only sha256 is supported"),
        (
            ORAS,
            vec![layer(
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                json!({}),
            )],
            "without the annotation org.opencontainers.image.title",
        ),
        (ORAS, vec![titled("../model.onnx")], "not a path within a package"),
        (ORAS, vec![titled("/model.onnx")], "not a path within a package"),
        (
            ORAS,
            vec![titled("extra//model.onnx")],
            "not a path within a package",
        ),
        (
            ORAS,
            vec![titled("extra\\model.onnx")],
            "not a path within a package",
        ),
        (
            ORAS,
            vec![titled("model.onnx"), titled("./model.onnx")],
            "two layers for the file model.onnx",
        ),
        (
            ORAS,
            vec![
                titled("more.zip"),
                layer(GZIP, json!({TITLE: "extra", UNPACK: "true"})),
            ],
            "the archive more.zip",
        ),
        (
            MODEL,
            vec![layer("application/vnd.cncf.model.weight.v1.raw", json!({}))],
            "without the annotation org.cncf.model.filepath",
        ),
        (
            MODEL,
            vec![layer(
                "application/vnd.cncf.model.weight.v2.blob",
                json!({FILE_PATHS[0]: "x"}),
            )],
            "not one of ModelPack's",
        ),
    ] {
        let error = found(config, &layers).unwrap_err();
        assert_eq!(error.reason, FetchReason::PackageInvalid, "{layers:?}");
        assert!(
            error.message.starts_with("oci://ghcr.io/models/x:1 "),
            "{}",
            error.message
        );
        assert!(error.message.contains(part), "{}", error.message);
    }
}

/// Without it, an artifact that only carries annotations is "ready" with nothing in it.
#[test]
fn an_artifact_without_files_is_not_found() {
    for layers in [vec![], vec![layer(EMPTY, json!({}))]] {
        let error = found(ORAS, &layers).unwrap_err();
        assert_eq!(error.reason, FetchReason::NotFound);
    }
}
