//! `multipart/form-data`: the images of a form, in the order of the form. Every field is treated as an image,
//! whatever its name.

use crate::protocol::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use multer::{Field, Multipart};

/// A file of a form.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// The file's name, or else the field's.
    pub(super) name: String,
    /// Its contents.
    pub(super) bytes: Bytes,
}

/// The boundary between the fields of a form; `None` if the body is not a form.
///
/// # Errors
/// 415 for another kind of multipart, 400 for a form without a boundary.
pub(super) fn boundary(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    // The first bytes of an image say what it is, whatever the Content-Type: `curl --data-binary` sends the
    // Content-Type of another kind of form.
    if !content_type.to_ascii_lowercase().starts_with("multipart/") {
        return Ok(None);
    }
    match multer::parse_boundary(content_type) {
        Ok(boundary) => Ok(Some(boundary)),
        Err(multer::Error::NoBoundary) => Err(ApiError::bad_request(
            "the form's Content-Type has no boundary: let the HTTP client set this header",
        )),
        Err(_) => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "a body of {content_type} is not supported: send multipart/form-data, or the image itself"
            ),
        )),
    }
}

/// Splits a form into its parts.
///
/// # Errors
/// 400 if it is broken or contains no image, 413 if it contains more than `max` images.
pub(super) async fn parts(form: Bytes, boundary: String, max: usize) -> Result<Vec<Part>, ApiError> {
    let mut form = Multipart::new(Body::from(form).into_data_stream(), boundary);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let Some(part) = part(field).await? else { continue };
        if parts.len() == max {
            let message = format!("the form has more than {max} images, the limit for one request");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return Err(ApiError::bad_request(
            "the form has no image: use curl -F file=@photo.jpg URL",
        ));
    }
    Ok(parts)
}

/// `None` for a file input of a web page in which no file was chosen.
async fn part(field: Field<'_>) -> Result<Option<Part>, ApiError> {
    let file = field.file_name().map(str::to_owned);
    let name = field.name().unwrap_or_default().to_owned();
    let bytes = field.bytes().await.map_err(broken)?;
    if bytes.is_empty() && file.as_deref() == Some("") {
        return Ok(None);
    }
    let name = file.filter(|file| !file.is_empty()).unwrap_or(name);
    Ok(Some(Part { name, bytes }))
}

fn broken(error: multer::Error) -> ApiError {
    ApiError::bad_request(format!("the form is broken: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::response::IntoResponse;

    const BOUNDARY: &str = "--x\r\nContent-Disposition: form-data; ";

    async fn read(form: &str, max: usize) -> Result<Vec<Part>, u16> {
        let parts = parts(Bytes::from(form.to_owned()), "x".to_owned(), max).await;
        parts.map_err(|error| error.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn files_keep_their_order_and_names() {
        let form = format!(
            "{BOUNDARY}name=\"file\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\nfirst\r\n\
             {BOUNDARY}name=\"second\"\r\n\r\n\r\n--x--\r\n"
        );
        let part = |name: &str, bytes: &'static str| Part {
            name: name.to_owned(),
            bytes: Bytes::from(bytes),
        };
        assert_eq!(
            read(&form, 2).await.unwrap(),
            [part("a.jpg", "first"), part("second", "")]
        );
        assert_eq!(read(&form, 1).await, Err(413));
    }

    /// A page with two file inputs sends both, even if only one is used.
    #[tokio::test]
    async fn a_file_input_without_a_file_is_skipped() {
        let empty = format!(
            "{BOUNDARY}name=\"file\"; filename=\"\"\r\nContent-Type: application/octet-stream\r\n\r\n\r\n"
        );
        let form = format!("{empty}{BOUNDARY}name=\"file\"; filename=\"b\"\r\n\r\nx\r\n--x--\r\n");
        assert_eq!(read(&form, 1).await.unwrap().len(), 1);
        assert_eq!(read(&format!("{empty}--x--\r\n"), 1).await, Err(400));
    }

    #[tokio::test]
    async fn a_form_that_breaks_off_is_refused() {
        let form = format!("{BOUNDARY}name=\"file\"; filename=\"a.jpg\"\r\n\r\nfirst");
        for end in [0, 2, 10, form.len()] {
            assert_eq!(read(&form[..end], 1).await, Err(400), "{end}");
        }
    }
}
