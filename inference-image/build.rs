//! Compiles `proto/inference.proto` to Rust types, and to the descriptors that gRPC's reflection hands out.
//! `src/protocol/grpc` answers the calls itself, so no server is generated.

use std::error::Error;
use std::path::PathBuf;

const PROTO: &str = "proto/inference.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_file(PROTO)?;
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(
        folder.join("inference.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    // The comments in the file are for its readers, and are not Rust documentation.
    prost_build::Config::new()
        .bytes(["."])
        .disable_comments(["."])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
