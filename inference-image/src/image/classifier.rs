//! Image classification: checks `model.yaml` once against the model's signature, then turns images into the model's
//! inputs and its output into labelled probabilities.

use crate::engine::{Port, Signature};
use crate::image::preprocess::Pipeline;
use crate::image::problems::Problems;
use crate::package::manifest::{Activation, Labels, Layout, Manifest};
use crate::tensor::{DataType, InputError, Tensor};
use half::{bf16, f16};
use serde::Serialize;
use std::borrow::Cow;

/// A manifest that fits its model.
#[derive(Clone, Debug)]
pub struct ImageClassifier {
    pipeline: Pipeline,
    layout: Layout,
    takes_batches: bool,
    output: usize,
    labels: Vec<String>,
    activation: Activation,
    top_k: usize,
}

/// One class of a result.
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
    /// Checks the manifest against the model.
    ///
    /// # Errors
    /// Everything in `model.yaml` that does not fit the model.
    pub fn new(manifest: &Manifest, signature: &Signature, max_pixels: u64) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let input = problems.keep(input(manifest, signature));
        let image = input.map(image);
        if let Some(image) = &image {
            problems.keep(check_batch(image));
        }
        let output = problems.keep(find("output", manifest.output.as_deref(), &signature.outputs));
        if let Some(output) = output {
            problems.keep(check_scores(&signature.outputs[output]));
        }
        // The names are unknown as long as their file has not been read.
        if let Labels::Inline(labels) = &manifest.labels {
            let output = output.map(|output| &signature.outputs[output]);
            problems.keep(check_labels(labels.len(), output));
        }
        if manifest.postprocessing.top_k == 0 {
            problems.add("postprocessing.topK must be at least 1");
        }
        let pipeline = image
            .as_ref()
            .and_then(|image| problems.keep(Pipeline::new(&manifest.preprocessing, image, max_pixels)));
        let any_batch = |port: &Port| port.shape.len() > 1 && port.shape[0] < 0;
        let (image, output, pipeline) = problems
            .none_or(image.zip(output).zip(pipeline))
            .map(|((image, output), pipeline)| (image, output, pipeline))?;
        Ok(Self {
            takes_batches: any_batch(&image)
                && any_batch(&signature.outputs[output])
                && pipeline.fixed_size().is_some(),
            pipeline,
            layout: manifest.preprocessing.layout,
            output,
            labels: manifest.labels.names().to_vec(),
            activation: manifest.postprocessing.activation,
            top_k: manifest.postprocessing.top_k,
        })
    }

    /// The order of an image's dimensions in the model's input.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Index of the output that holds the scores.
    #[must_use]
    pub const fn output(&self) -> usize {
        self.output
    }

    /// The name of a class.
    #[must_use]
    pub fn label(&self, class: usize) -> Option<&str> {
        self.labels.get(class).map(String::as_str)
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.labels.len()
    }

    /// Classes in a response unless the request says otherwise.
    #[must_use]
    pub fn top_k(&self) -> usize {
        self.top_k.min(self.classes())
    }

    /// Whether several images can be processed in one run: the model accepts any number of rows and returns one row
    /// for each, and pre-processing makes all images the same size.
    #[must_use]
    pub const fn takes_batches(&self) -> bool {
        self.takes_batches
    }

    /// Runs each image separately.
    #[must_use]
    pub fn one_by_one(self) -> Self {
        Self {
            takes_batches: false,
            ..self
        }
    }

    /// The model's inputs for some images: one image, unless the model accepts batches.
    ///
    /// # Errors
    /// When an image is unsupported, broken or too large; its index comes with the error.
    pub fn inputs(&self, images: &[impl AsRef<[u8]>]) -> Result<Vec<Tensor>, (usize, InputError)> {
        Ok(vec![self.pipeline.batch(images)?])
    }

    /// Inputs of the size that the model accepts, for the warm-up.
    #[must_use]
    pub fn blank(&self) -> Option<Vec<Tensor>> {
        Some(vec![self.pipeline.blank()?])
    }

    /// The scores of `images` images.
    ///
    /// # Errors
    /// When the model's output is not what its package promises.
    pub fn scores(&self, output: &Tensor, images: usize) -> Result<Vec<f32>, String> {
        let scores = floats(output).ok_or("the output does not hold floating-point numbers")?;
        if scores.len() == self.classes() * images {
            return Ok(scores);
        }
        Err(format!(
            "the output holds {} values for {images} images, but model.yaml has {} labels",
            scores.len(),
            self.classes()
        ))
    }

    /// For each of `images` images, the `top_k` most probable classes of its scores, best first. A class whose score
    /// is −∞ is ruled out by the model: its probability is 0.
    ///
    /// # Errors
    /// When the model's output is not what its package promises, or is meaningless: NaN, +∞, or −∞ for all classes.
    pub fn answers(
        &self,
        scores: &Tensor,
        images: usize,
        top_k: usize,
    ) -> Result<Vec<Vec<Prediction>>, String> {
        let scores = self.scores(scores, images)?;
        let rows = || scores.chunks_exact(self.classes());
        match rows().position(|scores| !is_answer(scores)) {
            None => Ok(rows().map(|scores| self.best(scores, top_k)).collect()),
            Some(index) => Err(format!(
                "the model's output for image {} of {images} is not usable: it holds NaN or infinity, or \
                 rules out every class",
                index + 1
            )),
        }
    }

    fn best(&self, scores: &[f32], top_k: usize) -> Vec<Prediction> {
        let probabilities = match self.activation {
            Activation::None => Cow::Borrowed(scores),
            Activation::Softmax => Cow::Owned(softmax(scores)),
        };
        // Softmax keeps the order of the scores, but rounds small ones to the same value.
        let descending = |&a: &usize, &b: &usize| scores[b].total_cmp(&scores[a]).then(a.cmp(&b));
        let mut ranking: Vec<usize> = (0..probabilities.len()).collect();
        // The best are selected before they are sorted, because there may be thousands of classes.
        if top_k < ranking.len() {
            ranking.select_nth_unstable_by(top_k, descending);
            ranking.truncate(top_k);
        }
        ranking.sort_unstable_by(descending);
        let prediction = |class: usize| Prediction {
            class,
            label: self.labels[class].clone(),
            probability: if probabilities[class] == f32::NEG_INFINITY {
                0.0
            } else {
                probabilities[class]
            },
        };
        ranking.into_iter().map(prediction).collect()
    }
}

/// The only input.
fn input<'a>(manifest: &Manifest, signature: &'a Signature) -> Result<&'a Port, String> {
    let index = find("input", manifest.input.as_deref(), &signature.inputs)?;
    match signature.inputs.len() {
        1 => Ok(&signature.inputs[index]),
        several => Err(format!(
            "the model has {several} inputs, but an image classifier has one: remove model.yaml and use tensors"
        )),
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
            .ok_or_else(|| format!("{kind} {name:?} is not in the model, which has: {}", names())),
        (None, [_]) => Ok(0),
        (None, _) => Err(format!(
            "the model has several {kind}s, name one with `{kind}`: {}",
            names()
        )),
    }
}

/// The input; an image has four dimensions, even if the model does not say so.
fn image(input: &Port) -> Port {
    let shape = if input.any_rank {
        vec![-1; 4]
    } else {
        input.shape.clone()
    };
    Port {
        shape,
        any_rank: false,
        ..input.clone()
    }
}

fn check_batch(input: &Port) -> Result<(), String> {
    match input.shape.first() {
        Some(..=1) => Ok(()),
        _ => Err(format!(
            "input {:?} has shape {:?}, but the batch must be dynamic or 1",
            input.name, input.shape
        )),
    }
}

fn check_scores(output: &Port) -> Result<(), String> {
    let float = matches!(
        output.datatype,
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64
    );
    if !float {
        return Err(format!(
            "output {:?} is {}, but scores must be floating-point",
            output.name,
            output.datatype.name()
        ));
    }
    Ok(())
}

/// One value per label. The warm-up checks dimensions that are known only after a run.
fn check_labels(labels: usize, output: Option<&Port>) -> Result<(), String> {
    if labels == 0 {
        return Err("labels must name at least one class".to_owned());
    }
    let Some(output) = output else {
        return Ok(());
    };
    let dimensions = match &output.shape[..] {
        [_, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let known = !output.any_rank && dimensions.iter().all(|&dimension| dimension >= 0);
    if known && dimensions.iter().product::<i64>() != labels as i64 {
        return Err(format!(
            "there are {labels} labels, but output {:?} has shape {:?}",
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

/// Whether the scores distinguish the classes.
fn is_answer(scores: &[f32]) -> bool {
    scores.iter().all(|score| *score < f32::INFINITY) && scores.iter().any(|score| score.is_finite())
}

/// exp(x − max) / Σ exp(x − max); without subtracting the maximum, large logits would overflow.
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
        let port = |name: &str, shape: &[i64]| Port::new(name, DataType::Fp32, shape);
        Signature::new(vec![port("x", &[-1, 3, 4, 4])], vec![port("y", output)], 17)
    }

    fn classifier(manifest: &str, signature: &Signature) -> Result<ImageClassifier, String> {
        all_problems(manifest, signature).map_err(|problems| problems.to_string())
    }

    fn all_problems(manifest: &str, signature: &Signature) -> Result<ImageClassifier, Problems> {
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
        let answer = &classifier.answers(&scores(&[100.0, 102.0, 101.0]), 1, 2).unwrap()[0];
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
            classifier.answers(&scores(&[0.2, 0.7, 0.1]), 1, 3).unwrap()[0][0].probability,
            0.7
        );
    }

    /// If rows are mixed up, an image gets another image's result.
    #[test]
    fn each_image_of_a_batch_has_its_row_and_equal_scores_keep_their_order() {
        let classifier = classifier("", &signature(&[-1, 3])).unwrap();
        let rows = scores(&[0.1, 0.8, 0.1, 0.4, 0.2, 0.4]);
        let answers = classifier.answers(&rows, 2, 2).unwrap();
        let classes: Vec<Vec<usize>> = answers
            .iter()
            .map(|answer| answer.iter().map(|prediction| prediction.class).collect())
            .collect();
        assert_eq!(classes, [[1, 0], [0, 2]]);
    }

    #[test]
    fn only_a_model_whose_batch_is_open_at_both_ends_takes_batches() {
        let resize = "preprocessing: {resize: {mode: stretch, width: 4, height: 4}}";
        let takes = |input: &[i64], output: &[i64]| {
            let mut signature = signature(output);
            signature.inputs[0].shape = input.to_vec();
            let text = format!("task: image-classification\nlabels: [cat, dog, cow]\n{resize}");
            ImageClassifier::new(&parse(&text).unwrap(), &signature, 1 << 20)
                .unwrap()
                .takes_batches()
        };
        assert!(takes(&[-1, 3, 4, 4], &[-1, 3]));
        assert!(!takes(&[1, 3, 4, 4], &[1, 3]) && !takes(&[-1, 3, 4, 4], &[3]));
    }

    /// Broken numbers must not look like a result.
    #[test]
    fn an_output_that_is_no_answer_is_an_error() {
        let softmax = "postprocessing: {activation: softmax}";
        for manifest in ["", softmax] {
            let classifier = classifier(manifest, &signature(&[-1, -1])).unwrap();
            let problem =
                |values: &[f32], images| classifier.answers(&scores(values), images, 1).unwrap_err();
            for values in [
                [f32::NAN, 0.0, 0.0],
                [0.0, 0.0, f32::INFINITY],
                [f32::NAN, f32::NEG_INFINITY, 0.0],
                [f32::NEG_INFINITY; 3],
            ] {
                assert!(problem(&values, 1).contains("is not usable"), "{values:?}");
                let second = [&[0.0; 3], &values[..]].concat();
                assert!(problem(&second, 2).contains("image 2 of 2"), "{values:?}");
            }
            assert!(problem(&[0.0; 4], 1).contains("3 labels"));
        }
    }

    // Requests to a model that masks classes once failed with 500.
    #[test]
    fn a_class_that_the_model_rules_out_has_a_probability_of_0_and_comes_last() {
        for (manifest, values, best) in [
            (
                "postprocessing: {activation: softmax}",
                [f32::NEG_INFINITY, 2.0, 2.0],
                0.5,
            ),
            (
                "postprocessing: {activation: softmax}",
                [f32::NEG_INFINITY, f32::MIN, 2.0],
                1.0,
            ),
            ("", [f32::NEG_INFINITY, 0.25, -0.75], 0.25),
        ] {
            let classifier = classifier(manifest, &signature(&[-1, 3])).unwrap();
            let answer = &classifier.answers(&scores(&values), 1, 3).unwrap()[0];
            assert_eq!((answer[2].class, answer[2].probability), (0, 0.0), "{answer:?}");
            assert_eq!(answer[0].probability, best, "{answer:?}");
        }
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
