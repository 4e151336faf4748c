//! Image classification: what `model.yaml` promises, checked once against the model's signature; then from
//! an image to the model's inputs, and from its output to labelled probabilities.

use crate::engine::{Port, Signature};
use crate::package::manifest::{Activation, Manifest};
use crate::preprocess::Pipeline;
use crate::scheduling::InputError;
use crate::tensor::{DataType, Tensor};
use half::{bf16, f16};
use serde::Serialize;

/// A manifest that fits its model.
#[derive(Clone, Debug)]
pub struct ImageClassifier {
    pipeline: Pipeline,
    output: usize,
    labels: Vec<String>,
    activation: Activation,
    top_k: usize,
}

/// One class of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Index in the model's output.
    pub class: usize,
    /// Its name.
    pub label: String,
    /// Between 0 and 1.
    pub probability: f32,
}

impl ImageClassifier {
    /// Fits the manifest to the model.
    ///
    /// # Errors
    /// A sentence that says what in `model.yaml` does not fit the model.
    pub fn new(manifest: &Manifest, signature: &Signature, max_pixels: u64) -> Result<Self, String> {
        let input = find("input", manifest.input.as_deref(), &signature.inputs)?;
        if signature.inputs.len() != 1 {
            return Err(format!(
                "the model has {} inputs, a classifier of images has one: leave model.yaml out and use tensors",
                signature.inputs.len()
            ));
        }
        let output = find("output", manifest.output.as_deref(), &signature.outputs)?;
        check_batch(&signature.inputs[input])?;
        check_output(&signature.outputs[output], manifest.labels.names().len())?;
        if manifest.postprocessing.top_k == 0 {
            return Err("postprocessing.topK must be at least 1".to_owned());
        }
        Ok(Self {
            pipeline: Pipeline::new(&manifest.preprocessing, &signature.inputs[input], max_pixels)?,
            output,
            labels: manifest.labels.names().to_vec(),
            activation: manifest.postprocessing.activation,
            top_k: manifest.postprocessing.top_k,
        })
    }

    /// Index of the output that holds the scores.
    #[must_use]
    pub const fn output(&self) -> usize {
        self.output
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.labels.len()
    }

    /// Classes in an answer unless the request says otherwise.
    #[must_use]
    pub fn top_k(&self) -> usize {
        self.top_k.min(self.classes())
    }

    /// The model's inputs for an image.
    ///
    /// # Errors
    /// When the image is none, is broken or too large.
    pub fn inputs(&self, image: &[u8]) -> Result<Vec<Tensor>, InputError> {
        Ok(vec![self.pipeline.tensor(image)?])
    }

    /// Inputs of the size that the model takes, for warming up.
    #[must_use]
    pub fn blank(&self) -> Option<Vec<Tensor>> {
        Some(vec![self.pipeline.blank()?])
    }

    /// The `top_k` most probable classes of the scores, best first.
    ///
    /// # Errors
    /// When the model's output is not what its package promises.
    pub fn answer(&self, scores: &Tensor, top_k: usize) -> Result<Vec<Prediction>, String> {
        let scores = floats(scores).ok_or("the output holds no floating-point numbers")?;
        if scores.len() != self.classes() {
            return Err(format!(
                "the output holds {} values, model.yaml has {} labels",
                scores.len(),
                self.classes()
            ));
        }
        if scores.iter().any(|score| !score.is_finite()) {
            return Err("the output holds values that are not finite".to_owned());
        }
        let probabilities = match self.activation {
            Activation::None => scores,
            Activation::Softmax => softmax(&scores),
        };
        let mut ranking: Vec<(usize, f32)> = probabilities.into_iter().enumerate().collect();
        ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
        let best = ranking.into_iter().take(top_k);
        Ok(best
            .map(|(class, probability)| Prediction {
                class,
                label: self.labels[class].clone(),
                probability,
            })
            .collect())
    }
}

fn find(kind: &str, name: Option<&str>, ports: &[Port]) -> Result<usize, String> {
    let names = || {
        ports
            .iter()
            .map(|port| port.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (name, ports) {
        (Some(name), _) => ports
            .iter()
            .position(|port| port.name == name)
            .ok_or_else(|| format!("{kind} {name:?} is not in the model, it has: {}", names())),
        (None, [_]) => Ok(0),
        (None, _) => Err(format!(
            "the model has several {kind}s, name one with `{kind}`: {}",
            names()
        )),
    }
}

fn check_batch(input: &Port) -> Result<(), String> {
    match input.shape.first() {
        Some(..=1) => Ok(()),
        _ => Err(format!(
            "input {:?} has shape {:?}, the batch must be dynamic or 1",
            input.name, input.shape
        )),
    }
}

/// One value per label; dimensions that are known only after a run are checked by the warm-up.
fn check_output(output: &Port, labels: usize) -> Result<(), String> {
    let float = matches!(
        output.datatype,
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64
    );
    if !float {
        return Err(format!(
            "output {:?} is {}, scores must be floating-point",
            output.name,
            output.datatype.name()
        ));
    }
    let dimensions = match &output.shape[..] {
        [_, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let known = dimensions.iter().all(|&dimension| dimension >= 0);
    if known && dimensions.iter().product::<i64>() != labels as i64 {
        return Err(format!(
            "there are {labels} labels, output {:?} has shape {:?}",
            output.name, output.shape
        ));
    }
    Ok(())
}

fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    Some(match tensor.datatype() {
        DataType::Fp32 => tensor.elements::<f32>()?.to_vec(),
        #[allow(clippy::cast_possible_truncation)]
        DataType::Fp64 => tensor
            .elements::<f64>()?
            .iter()
            .map(|&value| value as f32)
            .collect(),
        DataType::Fp16 => tensor
            .elements::<f16>()?
            .iter()
            .copied()
            .map(f16::to_f32)
            .collect(),
        DataType::Bf16 => tensor
            .elements::<bf16>()?
            .iter()
            .copied()
            .map(bf16::to_f32)
            .collect(),
        _ => return None,
    })
}

/// exp(x − max) / Σ exp(x − max); without the maximum large logits would overflow.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::package::manifest::parse;

    fn signature(output: &[i64]) -> Signature {
        let port = |name: &str, shape: &[i64]| Port {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: shape.into(),
        };
        Signature {
            inputs: vec![port("x", &[-1, 3, 4, 4])],
            outputs: vec![port("y", output)],
            opset: 17,
        }
    }

    fn classifier(manifest: &str, signature: &Signature) -> Result<ImageClassifier, String> {
        let text =
            format!("task: image-classification\nlabels: [cat, dog, cow]\npreprocessing: {{}}\n{manifest}");
        ImageClassifier::new(&parse(&text).unwrap(), signature, 1 << 20)
    }

    fn scores(values: &[f32]) -> Tensor {
        Tensor::from_vec(vec![1, values.len() as i64], values.to_vec()).unwrap()
    }

    #[test]
    fn logits_become_probabilities_best_first() {
        let classifier = classifier("postprocessing: {activation: softmax}", &signature(&[-1, 3])).unwrap();
        let answer = classifier.answer(&scores(&[100.0, 102.0, 101.0]), 2).unwrap();
        let labels: Vec<&str> = answer
            .iter()
            .map(|prediction| prediction.label.as_str())
            .collect();
        assert_eq!(labels, ["dog", "cow"]);
        assert!((answer[0].probability - 0.665_24).abs() < 1e-4, "{answer:?}");
        assert_eq!(answer[1].class, 2);
    }

    #[test]
    fn probabilities_stay_as_they_are() {
        let classifier = classifier("", &signature(&[1, 3, 1, 1])).unwrap();
        assert_eq!(
            classifier.answer(&scores(&[0.2, 0.7, 0.1]), 3).unwrap()[0].probability,
            0.7
        );
    }

    // Broken numbers must not look like an answer.
    #[test]
    fn an_output_that_is_no_answer_is_an_error() {
        let classifier = classifier("", &signature(&[-1, -1])).unwrap();
        assert!(
            classifier
                .answer(&scores(&[f32::NAN, 0.0, 0.0]), 1)
                .unwrap_err()
                .contains("finite")
        );
        assert!(
            classifier
                .answer(&scores(&[0.0; 4]), 1)
                .unwrap_err()
                .contains("3 labels")
        );
    }

    #[test]
    fn a_manifest_that_does_not_fit_its_model_is_refused() {
        for (manifest, output, word) in [
            ("", &[-1_i64, 4][..], "3 labels"),
            ("output: z", &[-1, 3], "\"z\""),
            ("input: z", &[-1, 3], "\"z\""),
            ("postprocessing: {topK: 0}", &[-1, 3], "topK"),
        ] {
            let problem = classifier(manifest, &signature(output)).unwrap_err();
            assert!(problem.contains(word), "{manifest}: {problem}");
        }
        let mut batch = signature(&[-1, 3]);
        batch.inputs[0].shape[0] = 8;
        assert!(classifier("", &batch).unwrap_err().contains("batch"));
        let mut integers = signature(&[-1, 3]);
        integers.outputs[0].datatype = DataType::Int64;
        assert!(classifier("", &integers).unwrap_err().contains("floating-point"));
        let mut two = signature(&[-1, 3]);
        two.outputs.push(two.outputs[0].clone());
        assert!(classifier("", &two).unwrap_err().contains("several outputs"));
    }
}
