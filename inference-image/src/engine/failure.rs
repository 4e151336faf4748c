//! Whether the client or the server is at fault when ONNX Runtime fails, and its message without source locations.
//! Pure.
//!
//! Kernels report the same mistake with different status codes (a shape that does not fit is `FAIL` from Add,
//! `INVALID_ARGUMENT` from Gemm and `RUNTIME_EXCEPTION` from Cast), so the code alone says nothing. An error that an
//! operator reports while it runs is caused by its inputs: a model that can never run already fails when it is
//! loaded.

use super::interface::EngineError;
use ort::ErrorCode;

/// Precedes the type of an operator in what it reports.
const WHILE_RUNNING: &str = "while running ";
const STATUS_MESSAGE: &str = "Status Message: ";

/// Messages about missing memory from ONNX Runtime's allocators, C++ and CUDA.
const NO_MEMORY: [&str; 6] = [
    "Failed to allocate memory",
    "smaller than requested bytes of",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "ALLOC_FAILED",
];

/// Texts before the size that could not be allocated.
const WANTED: [&str; 2] = ["requested buffer of size ", "requested bytes of "];

/// Devices and their compilers, whose failures are reported as those of an operator.
const DEVICE: [&str; 3] = ["OpenVINO", "TensorRT", "QNN"];

/// Endings of file names in ONNX Runtime's messages.
const SOURCES: [&str; 6] = [".cc", ".h", ".cpp", ".hpp", ".cu", ".cuh"];

pub(super) fn explain(error: &ort::Error) -> EngineError {
    classify(error.code(), error.message())
}

fn classify(code: ErrorCode, message: &str) -> EngineError {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&NO_MEMORY) {
        return EngineError::NoMemory(wanted(message));
    }
    let by_device = matches!(
        code,
        ErrorCode::EngineError | ErrorCode::ExecutionProviderFailure | ErrorCode::DeviceReset
    ) || has(&DEVICE)
        || has_device_failure(message);
    let by_operator = message.contains(WHILE_RUNNING);
    if !by_device && (by_operator || code == ErrorCode::InvalidArgument) {
        EngineError::Refused(readable(message))
    } else {
        EngineError::Failed(readable(message))
    }
}

/// Matches messages such as `CUDA failure 700: …`, the form for all device libraries.
fn has_device_failure(message: &str) -> bool {
    let mut reports = message.split(" failure ").skip(1);
    reports.any(|report| report.starts_with(|first: char| first.is_ascii_digit()))
}

/// Whether a line of ONNX Runtime's log repeats what a failed run returns.
pub(super) fn is_returned(line: &str) -> bool {
    line.contains("Non-zero status code returned while running ")
}

fn wanted(message: &str) -> Option<u64> {
    let number = WANTED.iter().find_map(|words| message.split_once(words))?.1;
    let end = number.find(|character: char| !character.is_ascii_digit());
    number[..end.unwrap_or(number.len())].parse().ok()
}

/// The operator, its name if it has one, and its message.
fn readable(message: &str) -> String {
    // An operator that contains a graph repeats the report of an operator in that graph: the last one matters.
    let Some((before, reason)) = message.rsplit_once(STATUS_MESSAGE) else {
        return without_sources(message);
    };
    let operator = before
        .rsplit_once(WHILE_RUNNING)
        .map_or(before, |(_, rest)| rest.trim());
    let (kind, name) = operator.split_once(" node. Name:").unwrap_or((operator, ""));
    let name = name.trim_matches('\'');
    let reason = match without_sources(reason) {
        reason if reason.is_empty() => "no reason given".to_owned(),
        reason => reason,
    };
    if name.is_empty() {
        format!("{kind}: {reason}")
    } else {
        format!("{kind} {name:?}: {reason}")
    }
}

/// A message without the files, lines, functions and conditions that may precede it.
pub(super) fn without_sources(message: &str) -> String {
    let mut rest = message.split("\nStacktrace").next().unwrap_or_default().trim();
    while let Some((place, after)) = after_source(rest) {
        // A full path precedes a full signature, and a file name precedes a function name.
        let words = if place.contains('/') {
            after_signature(after)
        } else {
            after.split_once(' ').map_or("", |(_, words)| words)
        };
        rest = match words.split_once(" was false.") {
            Some((condition, words)) if words.trim().is_empty() => return format!("{condition} was false"),
            Some((_, words)) => words.trim(),
            None => words.trim(),
        };
    }
    rest.to_owned()
}

/// The first place in a source file, such as `tensor.cc:57`, and what follows it.
fn after_source(text: &str) -> Option<(&str, &str)> {
    let mut start = 0;
    text.split(' ').find_map(|word| {
        let end = start + word.len();
        start = end + 1;
        is_source(word).then(|| (word, text[end..].trim_start()))
    })
}

fn is_source(word: &str) -> bool {
    let Some((file, line)) = word.rsplit_once(':') else {
        return false;
    };
    let is_number = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
    is_number && SOURCES.iter().any(|ending| file.ends_with(ending))
}

/// What follows a signature of C++, such as `void a::B<T>::operator()(int) const [with T = float]`.
fn after_signature(text: &str) -> &str {
    let mut rest = text;
    loop {
        let Some(end) = rest.find('(').and_then(|start| end_of_group(rest, start)) else {
            return rest;
        };
        rest = &rest[end..];
        // Lambdas, nameless namespaces and `operator()` have parentheses before those of the arguments.
        if rest.is_empty() || rest.starts_with(char::is_whitespace) {
            break;
        }
    }
    rest = rest.trim_start();
    rest = rest.strip_prefix("const ").unwrap_or(rest);
    if rest.starts_with("[with ") {
        rest = end_of_group(rest, 0).map_or("", |end| &rest[end..]);
    }
    rest.trim_start()
}

/// The end of the group that the bracket at `start` opens.
fn end_of_group(text: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    text[start..].char_indices().find_map(|(index, character)| {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then(|| start + index + character.len_utf8())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(operator: &str, reason: &str) -> String {
        format!(
            "Non-zero status code returned while running {operator} node. Name:'' Status Message: {reason}\n"
        )
    }

    /// Messages of ONNX Runtime 1.31: its kernels have four ways to name their place in its source.
    #[test]
    fn a_refusal_names_the_operator_and_the_reason_and_no_source() {
        for (operator, reason, expected) in [
            (
                "Add",
                "/onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:563 void \
                 onnxruntime::BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. \
                 Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
                "Add: Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
            ),
            (
                "GatherElements",
                "/onnxruntime_src/onnxruntime/core/providers/cpu/tensor/gather_elements.cc:150 void \
                 onnxruntime::core_impl(const Tensor*, int64_t) [with Tin = long int; int64_t = long int] \
                 GatherElements op: Out of range value in index tensor",
                "GatherElements: GatherElements op: Out of range value in index tensor",
            ),
            (
                "Concat",
                "concatbase.h:133 PrepareForComputeImpl Non concat axis dimensions must match: Axis 1",
                "Concat: Non concat axis dimensions must match: Axis 1",
            ),
            (
                "Mod",
                "element_wise_ops.cc:2256 operator() Integer modulo by zero",
                "Mod: Integer modulo by zero",
            ),
            (
                "ConstantOfShape",
                "/onnxruntime_src/onnxruntime/core/framework/op_kernel.cc:87 virtual OrtValue* \
                 onnxruntime::OpKernelContext::OutputMLValue(int, const onnxruntime::TensorShape&) \
                 [ONNXRuntimeError] : 1 : FAIL : tensor.cc:57 CalculateTensorStorageSize Tensor shape.Size() must be >= 0",
                "ConstantOfShape: Tensor shape.Size() must be >= 0",
            ),
            (
                "Clip",
                "/a/clip.cc:107 void onnxruntime::Clip::ComputeImpl<T>::operator()(const onnxruntime::Tensor*) const \
                 [with T = float] min->Shape().IsScalar() was false. min should be a scalar.",
                "Clip: min should be a scalar.",
            ),
            (
                "LRN",
                "/a/lrn.cc:59 onnxruntime::common::Status onnxruntime::LRN<T>::Compute(onnxruntime::OpKernelContext*) \
                 const [with T = float] X_shape.NumDimensions() == 4 was false. ",
                "LRN: X_shape.NumDimensions() == 4 was false",
            ),
            (
                "Pad",
                "/a/pad.h:1 (anonymous namespace)::f(int)::<lambda(int)>::operator()(int) const no room",
                "Pad: no room",
            ),
            ("Cast", "stod", "Cast: stod"),
            ("ArgMax", "", "ArgMax: no reason given"),
        ] {
            for code in [
                ErrorCode::GenericFailure,
                ErrorCode::InvalidArgument,
                ErrorCode::RuntimeException,
            ] {
                let error = classify(code, &by(operator, reason));
                assert_eq!(error, EngineError::Refused(expected.to_owned()), "{code:?}");
            }
        }
        let nested = by("Loop", by("If", &by("Add", "no").replace("''", "'sum'")).trim());
        assert_eq!(readable(&nested), "Add \"sum\": no");
    }

    #[test]
    fn memory_that_cannot_be_had_is_told_apart_with_what_was_wanted() {
        let arena = "/a/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, \
                     onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 4398046511104";
        for (reason, wanted) in [
            (arena, Some(4_398_046_511_104)),
            (
                "Available memory of 5 is smaller than requested bytes of 7",
                Some(7),
            ),
            ("std::bad_alloc", None),
            ("CUDA failure 2: out of memory ; GPU=0", None),
        ] {
            let error = classify(ErrorCode::GenericFailure, &by("Expand", reason));
            assert_eq!(error, EngineError::NoMemory(wanted), "{reason}");
        }
    }

    #[test]
    fn what_no_operator_and_no_input_caused_is_the_servers_fault() {
        let lost = by(
            "MatMul",
            "CUDA failure 700: an illegal memory access was encountered",
        );
        for (code, message) in [
            (ErrorCode::GenericFailure, lost.as_str()),
            (
                ErrorCode::ExecutionProviderFailure,
                &by("TRTKernel", "enqueue failed"),
            ),
            (ErrorCode::GenericFailure, "the session is gone"),
            (ErrorCode::NotImplemented, "no such call"),
        ] {
            let error = classify(code, message);
            assert!(matches!(error, EngineError::Failed(_)), "{error:?}");
        }
        let named = classify(ErrorCode::InvalidArgument, "Got invalid dimensions for input: x");
        assert!(matches!(named, EngineError::Refused(_)), "{named:?}");
    }
}
