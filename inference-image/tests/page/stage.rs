//! A server with its page in a browser, and a user's actions there.

use super::browser::Browser;
use super::support::Server;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A server with some models, and a browser that shows its page.
pub(crate) struct Stage {
    pub(crate) browser: Browser,
    _server: Option<Server>,
    /// Address of the page, with a trailing slash.
    pub(crate) url: String,
    pub(crate) management: String,
}

impl Stage {
    /// Serves these models, by name.
    pub(crate) fn new(models: &[(&str, PathBuf)]) -> Self {
        let mut stage = Self::start(&json!({ "models": served(models) }));
        stage.shows_a_model();
        stage
    }

    /// A server with this configuration.
    pub(crate) fn start(config: &Value) -> Self {
        let mut server = Server::start(&config.to_string(), &[]);
        // Both start at the same time.
        let browser = Browser::start();
        let (address, management) = server.addresses();
        let mut stage = Self {
            browser,
            url: format!("http://{address}/"),
            management: format!("http://{management}"),
            _server: Some(server),
        };
        stage.browser.open(&stage.url);
        stage
    }

    /// Shows the page of a running server.
    pub(crate) fn at(url: String) -> Self {
        let mut browser = Browser::start();
        browser.open(&url);
        Self {
            browser,
            url,
            management: String::new(),
            _server: None,
        }
    }

    pub(crate) fn shows_a_model(&mut self) {
        self.browser.wait("!document.querySelector('#model').hidden");
    }

    /// Shows another model.
    pub(crate) fn choose(&mut self, model: &str) {
        let name = json!(model);
        self.browser.value(&format!(
            "[...document.querySelectorAll('nav a')].find((link) => link.textContent === {name}).click()"
        ));
        self.browser
            .wait(&format!("document.querySelector('h2').textContent === {name}"));
    }

    /// Chooses files like a user who has only a keyboard.
    pub(crate) fn pick(&mut self, files: &[&Path]) {
        let intercept = json!({"enabled": true});
        self.browser.send("Page.setInterceptFileChooserDialog", intercept);
        self.tab_to("input[type=file]");
        self.browser.press("Enter", Some("\r"));
        let chooser = self.browser.event("Page.fileChooserOpened");
        let chosen = json!({"files": files, "backendNodeId": chooser["backendNodeId"]});
        self.browser.send("DOM.setFileInputFiles", chosen);
        self.results(files.len());
    }

    /// Fills in a field of a form and submits the form.
    pub(crate) fn type_into(&mut self, field: &str, text: &str) {
        self.browser
            .wait(&format!("document.querySelector('{field}').checkVisibility()"));
        self.browser
            .value(&format!("document.querySelector('{field}').select()"));
        self.browser.send("Input.insertText", json!({ "text": text }));
        self.browser.press("Enter", Some("\r"));
    }

    pub(crate) fn tab_to(&mut self, selector: &str) {
        let arrived = format!("document.activeElement.matches({})", json!(selector));
        self.browser.value("document.activeElement.blur()");
        for _ in 0..50 {
            self.browser.press("Tab", None);
            if self.browser.value(&arrived) == true {
                return;
            }
        }
        panic!("Tab does not reach {selector}");
    }

    /// Drags files onto the drop zone and drops them.
    pub(crate) fn drop(&mut self, files: &[&Path]) {
        let middle = "(() => { const box = document.querySelector('.drop').getBoundingClientRect(); \
                      return [box.x + box.width / 2, box.y + box.height / 2] })()";
        let middle = self.browser.value(middle);
        for kind in ["dragEnter", "dragOver", "drop"] {
            let event = json!({
                "type": kind, "x": middle[0], "y": middle[1],
                "data": {"items": [], "files": files, "dragOperationsMask": 1},
            });
            self.browser.send("Input.dispatchDragEvent", event);
        }
        self.results(files.len());
    }

    /// Waits until this many images have a result or an error.
    pub(crate) fn results(&mut self, count: usize) {
        self.browser.wait(&format!(
            "document.querySelectorAll('figure').length === {count} && \
             [...document.querySelectorAll('figure')].every((figure) => \
             figure.querySelector('.classes li, .error:not([hidden])')) && \
             !document.querySelector('.status').textContent.startsWith('Classifying')"
        ));
    }

    /// Checks that the page has reported no unexpected errors and has talked only to its server.
    pub(crate) fn assert_quiet(&self, expected: &[&str]) {
        let is_expected = |problem: &String| expected.iter().any(|words| problem.contains(words));
        let mut problems = self.browser.problems(&self.url);
        problems.retain(|problem| !is_expected(problem));
        assert!(problems.is_empty(), "{problems:#?}");
        assert!(self.browser.requests() >= 6, "the page and its files");
    }
}

/// Models, as the configuration lists them.
pub(crate) fn served(models: &[(&str, PathBuf)]) -> Vec<Value> {
    let model = |(name, path): &(&str, PathBuf)| json!({"name": name, "path": path});
    models.iter().map(model).collect()
}
