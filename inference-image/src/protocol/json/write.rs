//! Tensors as JSON lists.

use crate::tensor::{DataType, Element, Tensor};
use bytes::Bytes;
use serde::Serialize;

/// Checks that the elements have a JSON form.
///
/// # Errors
/// Which element is a text that is not UTF-8.
pub(crate) fn check(tensor: &Tensor) -> Result<(), String> {
    let is_text = |element: &Bytes| std::str::from_utf8(element).is_ok();
    let mut elements = tensor.strings().unwrap_or_default().iter();
    match elements.position(|element| !is_text(element)) {
        None => Ok(()),
        Some(index) => Err(format!("element {index} is not UTF-8, which JSON requires")),
    }
}

/// Appends the elements as one flat list, in row-major order. Numbers that JSON cannot express (infinities, NaN)
/// become null; types without a JSON form become a single null.
pub(crate) fn flat(out: &mut Vec<u8>, tensor: &Tensor) {
    elements(out, tensor, &[i64::try_from(tensor.len()).unwrap_or(i64::MAX)]);
}

/// Appends the elements as lists nested like the shape; a tensor without dimensions is written as its element.
pub(crate) fn nested(out: &mut Vec<u8>, tensor: &Tensor) {
    elements(out, tensor, tensor.shape());
}

/// The same for a single row of a tensor, without the first dimension.
pub(crate) fn row(out: &mut Vec<u8>, tensor: &Tensor) {
    elements(out, tensor, tensor.shape().get(1..).unwrap_or_default());
}

fn elements(out: &mut Vec<u8>, tensor: &Tensor, shape: &[i64]) {
    match tensor.datatype() {
        DataType::Bool => numbers::<bool>(out, tensor, shape),
        DataType::Uint8 => numbers::<u8>(out, tensor, shape),
        DataType::Uint16 => numbers::<u16>(out, tensor, shape),
        DataType::Uint32 => numbers::<u32>(out, tensor, shape),
        DataType::Uint64 => numbers::<u64>(out, tensor, shape),
        DataType::Int8 => numbers::<i8>(out, tensor, shape),
        DataType::Int16 => numbers::<i16>(out, tensor, shape),
        DataType::Int32 => numbers::<i32>(out, tensor, shape),
        DataType::Int64 => numbers::<i64>(out, tensor, shape),
        DataType::Fp32 => numbers::<f32>(out, tensor, shape),
        DataType::Fp64 => numbers::<f64>(out, tensor, shape),
        DataType::Bytes => {
            let strings = tensor.strings().unwrap_or_default().iter();
            // Callers have called `check` before.
            list(
                out,
                &mut strings.map(|text| std::str::from_utf8(text).unwrap_or_default()),
                shape,
            );
        }
        DataType::Fp16 | DataType::Bf16 => out.extend_from_slice(b"null"),
    }
}

fn numbers<T: Element + Serialize>(out: &mut Vec<u8>, tensor: &Tensor, shape: &[i64]) {
    let elements = tensor.elements::<T>().unwrap_or_default();
    list(out, &mut elements.iter(), shape);
}

fn list<T: Serialize>(out: &mut Vec<u8>, elements: &mut impl Iterator<Item = T>, shape: &[i64]) {
    let Some((&length, rest)) = shape.split_first() else {
        if let Some(element) = elements.next() {
            // Writing to memory does not fail, and these types always have a JSON form.
            let _ = serde_json::to_writer(&mut *out, &element);
        }
        return;
    };
    out.push(b'[');
    for index in 0..length {
        if index > 0 {
            out.push(b',');
        }
        list(out, elements, rest);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(tensor: &Tensor) -> [String; 2] {
        [flat, nested].map(|write| {
            let mut out = Vec::new();
            write(&mut out, tensor);
            String::from_utf8(out).unwrap()
        })
    }

    #[test]
    fn lists_are_flat_or_nested_as_the_shape_says() {
        let matrix = Tensor::from_vec(vec![2, 2], vec![0.1_f32, -1.0, f32::NAN, 3e38]).unwrap();
        assert_eq!(
            text(&matrix),
            ["[0.1,-1.0,null,3e+38]", "[[0.1,-1.0],[null,3e+38]]"]
        );
        let mut out = Vec::new();
        row(&mut out, &matrix.split(&[1, 1]).unwrap()[0]);
        assert_eq!(out, b"[0.1,-1.0]");
        let scalar = Tensor::from_vec(vec![], vec![7_u64]).unwrap();
        assert_eq!(text(&scalar), ["[7]", "7"]);
        let empty = Tensor::from_vec(vec![2, 0], Vec::<bool>::new()).unwrap();
        assert_eq!(text(&empty), ["[]", "[[],[]]"]);
        let strings = Tensor::from_strings(vec![2], vec!["\"é\\".into(), "".into()]).unwrap();
        assert_eq!(text(&strings)[0], r#"["\"é\\",""]"#);
        assert_eq!(check(&strings), Ok(()));
        let bytes = Tensor::from_strings(vec![2], vec!["a\0".into(), Bytes::from_static(b"\xff")]).unwrap();
        assert!(check(&bytes).unwrap_err().contains("element 1 is not UTF-8"));
    }
}
