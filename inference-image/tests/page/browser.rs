//! Chromium, driven over a pipe by the DevTools protocol: no port, no driver, and it ends with this process.
//! <https://chromedevtools.github.io/devtools-protocol/>

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Far longer than anything takes; after this time, something is stuck.
const DEADLINE: Duration = Duration::from_secs(60);

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // No other host can be resolved, not even by mistake.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
];

/// A browser with one page and a new profile; it ends when dropped.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    complaints: Receiver<String>,
    events: Vec<Value>,
    last: u64,
    page: String,
    // Last, so that it is removed after the browser.
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            // It reads commands from descriptor 3 and writes to 4.
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, messages) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let messages = output.split(0).map_while(Result::ok);
            messages
                .map(|message| serde_json::from_slice(&message).unwrap())
                .try_for_each(|message| sender.send(message))
        });
        let (sender, complaints) = channel();
        let output = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        let mut browser = Self {
            commands: child.stdin.take().unwrap(),
            child,
            messages,
            complaints,
            events: Vec::new(),
            last: 0,
            page: String::new(),
            _profile: profile,
        };
        let target = browser.send_to_browser("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.send_to_browser("Target.attachToTarget", target);
        browser.page = session["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log", "DOM", "Accessibility"] {
            browser.send(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Sends a command to the page; returns the result.
    pub(crate) fn send(&mut self, method: &str, parameters: Value) -> Value {
        let mut command = json!({"method": method, "params": parameters});
        command["sessionId"] = json!(self.page);
        self.exchange(method, command)
    }

    /// The same for the browser as a whole.
    pub(crate) fn send_to_browser(&mut self, method: &str, parameters: Value) -> Value {
        self.exchange(method, json!({"method": method, "params": parameters}))
    }

    fn exchange(&mut self, method: &str, mut command: Value) -> Value {
        self.last += 1;
        command["id"] = json!(self.last);
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        // If that fails, so does waiting for the response.
        let _ = self.commands.write_all(&bytes);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let message = self.receive(deadline, method);
            if message["id"] != self.last {
                self.events.push(message);
            } else if message["error"].is_null() {
                return message["result"].clone();
            } else {
                panic!("{method}: {}", message["error"]);
            }
        }
    }

    fn receive(&self, deadline: Instant, what: &str) -> Value {
        let left = deadline.saturating_duration_since(Instant::now());
        self.messages.recv_timeout(left).unwrap_or_else(|error| {
            let said: Vec<String> = self.complaints.try_iter().collect();
            panic!("{what}: {error}; is chromium installed (scripts/packages)? It says: {said:#?}")
        })
    }

    /// Waits for an event that has not been waited for; returns its parameters.
    pub(crate) fn event(&mut self, method: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(place) = self.events.iter().position(|event| event["method"] == method) {
                return self.events.remove(place)["params"].clone();
            }
            let message = self.receive(deadline, method);
            self.events.push(message);
        }
    }

    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.send("Page.navigate", json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.event("Page.loadEventFired");
    }

    /// The value of an expression, or of the promise that it returns.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let result = self.send("Runtime.evaluate", parameters);
        let problem = &result["exceptionDetails"];
        assert!(problem.is_null(), "{expression}\n{problem:#}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true, by watching changes of the page.
    pub(crate) fn wait(&mut self, expression: &str) {
        self.value(&format!(
            "new Promise((done) => {{
                const check = () => {{
                    if (!({expression})) return;
                    observer.disconnect();
                    done();
                }};
                const observer = new MutationObserver(check);
                observer.observe(document, {{attributes: true, characterData: true, childList: true, subtree: true}});
                check();
            }})"
        ));
    }

    /// The text of the only element that is visible and matches.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let texts = self.texts(selector);
        assert_eq!(texts.len(), 1, "{selector}: {texts:?}");
        texts.into_iter().next().unwrap()
    }

    /// The texts of the elements that are visible and match.
    pub(crate) fn texts(&mut self, selector: &str) -> Vec<String> {
        let selector = json!(selector);
        let texts = self.value(&format!(
            "[...document.querySelectorAll({selector})].filter((e) => e.checkVisibility()).map((e) => e.innerText)"
        ));
        serde_json::from_value(texts).unwrap()
    }

    pub(crate) fn press(&mut self, key: &str, text: Option<&str>) {
        let codes = [("Tab", 9), ("Enter", 13), (" ", 32)];
        let code = codes.iter().find(|(name, _)| *name == key).unwrap().1;
        let mut down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if let Some(text) = text {
            down["text"] = json!(text);
        }
        self.send("Input.dispatchKeyEvent", down);
        let up = json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code});
        self.send("Input.dispatchKeyEvent", up);
    }

    /// Saves a picture of the whole page, if `PAGE_PICTURES` names a folder.
    pub(crate) fn picture(&mut self, name: &str) {
        use base64::Engine;
        let Some(folder) = std::env::var_os("PAGE_PICTURES") else {
            return;
        };
        let parameters = json!({"captureBeyondViewport": true});
        let picture = self.send("Page.captureScreenshot", parameters);
        let bytes = base64::prelude::BASE64_STANDARD.decode(picture["data"].as_str().unwrap());
        let path = std::path::Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, bytes.unwrap()).unwrap();
    }

    /// Errors on the page, and its requests to other servers.
    pub(crate) fn problems(&self, page: &str) -> Vec<String> {
        let origin = page.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let local = [
            page.to_owned(),
            format!("blob:{origin}/"),
            "about:blank".to_owned(),
        ];
        let problem = |event: &Value| {
            let parameters = &event["params"];
            let (url, level) = (&parameters["request"]["url"], &parameters["entry"]["level"]);
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(parameters["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" => Some(parameters["args"].to_string()),
                "Log.entryAdded" if level != "verbose" => Some(parameters["entry"].to_string()),
                "Network.requestWillBeSent" => {
                    let url = url.as_str().unwrap();
                    let is_local = local.iter().any(|local| url.starts_with(local));
                    (!is_local).then(|| format!("asked for {url}"))
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(problem).collect()
    }

    /// The number of requests that the page has sent.
    pub(crate) fn requests(&self) -> usize {
        let sent = |event: &&Value| event["method"] == "Network.requestWillBeSent";
        self.events.iter().filter(sent).count()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // When asked, it exits cleanly and leaves no process that writes into its profile.
        let _ = self
            .commands
            .write_all(b"{\"id\": 0, \"method\": \"Browser.close\"}\0");
        let deadline = Instant::now() + Duration::from_secs(10);
        let left = || deadline.saturating_duration_since(Instant::now());
        // All of its processes share one standard error, which closes with the last of them.
        while self.complaints.recv_timeout(left()).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
