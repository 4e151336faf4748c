//! The result of a check as text for a person.

use super::requests::Requests;
use super::verdict::{Problem, Verdict};
use modelservice_contract::{Assignment, DigestCovers, ModelReport, TensorSpec};
use std::fmt::{self, Write as _};

/// Everything that is known.
pub(super) fn text(verdict: &Verdict) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, verdict);
    text
}

fn write(text: &mut String, verdict: &Verdict) -> fmt::Result {
    let name = &verdict.name;
    if !verdict.is_served {
        return problems(text, verdict);
    }
    writeln!(text, "{name}: a server would serve this package.")?;
    if let Some(report) = &verdict.model {
        model(text, report)?;
    }
    if let Some(requests) = &verdict.requests {
        images(text, requests)?;
    }
    if !verdict.notes.is_empty() {
        writeln!(text, "\nGood to know:")?;
        verdict
            .notes
            .iter()
            .try_for_each(|note| writeln!(text, "- {note}"))?;
    }
    match &verdict.requests {
        Some(requests) => commands(text, requests, name),
        None => Ok(()),
    }
}

fn problems(
    text: &mut String,
    Verdict {
        name,
        problems,
        unchecked,
        ..
    }: &Verdict,
) -> fmt::Result {
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        several => format!("{several} problems"),
    };
    writeln!(text, "{name}: a server would not serve this package: {count}.")?;
    for (
        index,
        Problem {
            reason,
            exit_code,
            message,
        },
    ) in problems.iter().enumerate()
    {
        writeln!(
            text,
            "\n{}. {reason:?} (exit code {exit_code})\n   {message}",
            index + 1
        )?;
    }
    if unchecked.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nNot checked because of that: {}.", unchecked.join(", "))
}

fn model(text: &mut String, report: &ModelReport) -> fmt::Result {
    let covers = match report.digest_covers {
        DigestCovers::ModelFile => "of model.onnx",
        DigestCovers::Package => "of the package",
    };
    writeln!(text, "\n  digest   {} ({covers})", report.digest)?;
    writeln!(text, "  opset    {}", report.opset)?;
    if let Some(producer) = &report.producer {
        writeln!(text, "  made by  {producer}")?;
    }
    if let Some(Assignment {
        provider,
        nodes,
        elsewhere,
        ..
    }) = &report.assignment
    {
        let others: u64 = elsewhere.values().sum();
        let others = if others > 0 {
            format!(", {others} on the CPU")
        } else {
            String::new()
        };
        writeln!(text, "  runs on  {provider} ({nodes} compute nodes{others})")?;
    }
    writeln!(text, "\nClients send")?;
    ports(text, &report.inputs)?;
    writeln!(text, "and get")?;
    ports(text, &report.outputs)?;
    let is_open = |port: &TensorSpec| port.shape.contains(&-1);
    if report.inputs.iter().chain(&report.outputs).any(is_open) {
        writeln!(text, "where -1 is any size from 1.")?;
    }
    Ok(())
}

fn ports(text: &mut String, ports: &[TensorSpec]) -> fmt::Result {
    ports.iter().try_for_each(
        |TensorSpec {
             name,
             datatype,
             shape,
         }| writeln!(text, "  {name}  {datatype}  {shape:?}"),
    )
}

fn images(text: &mut String, requests: &Requests) -> fmt::Result {
    let Some(images) = &requests.images else {
        return writeln!(
            text,
            "\nThere is no model.yaml, so clients send tensors, not images."
        );
    };
    let together = if images.takes_batches {
        ", several in one run"
    } else {
        ""
    };
    writeln!(
        text,
        "\nClients can also send images (JPEG, PNG, WebP, GIF, BMP{together}) and get the best {} of {} classes.",
        images.top_k, images.classes
    )
}

fn commands(text: &mut String, requests: &Requests, name: &str) -> fmt::Result {
    writeln!(text, "\nTo try it, start a server:\n{}", requests.serve)?;
    if let Some(images) = &requests.images {
        writeln!(text, "\nSend an image:\n{}", images.classify)?;
    }
    let origin = if requests.is_tried {
        "inputs that the model accepts, all 0 or all 1"
    } else {
        "made-up inputs, which the model may not accept"
    };
    writeln!(
        text,
        "\nSend tensors (Open Inference Protocol, version 2; {origin}):\n{}",
        requests.infer
    )?;
    writeln!(
        text,
        "\nOver gRPC, on the same port: {} with model_name {name:?}.",
        requests.grpc
    )
}
