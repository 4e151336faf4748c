//! Documentation that the server itself offers: its OpenAPI description, and a page to try the models from a browser.

mod examples;
mod openapi;
mod page;

pub(super) use openapi::document as openapi;
pub(super) use page::add;
pub(crate) use page::is_file as is_page_file;
