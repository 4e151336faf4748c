//! Runs Helm, without leaving anything in the caller's home.

use crate::repository;
use serde_json::Value;
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// The release's name and namespace in every test.
pub(crate) const RELEASE: &str = "serving";
pub(crate) const NAMESPACE: &str = "modelservice-system";
pub(crate) const CHART: &str = "charts/modelservice-operator";

/// Both major versions that people use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helm {
    Three,
    Four,
}

impl Helm {
    pub(crate) const BOTH: [Self; 2] = [Self::Three, Self::Four];

    /// Helm with its own home folder; `kubeconfig` is set if it should talk to a cluster.
    pub(crate) fn command(self, kubeconfig: Option<&Path>) -> Command {
        let name = match self {
            Self::Three => "helm3",
            Self::Four => "helm",
        };
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut command = Command::new(local_cluster::tool(name).unwrap());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/dev/null")))
            .current_dir(repository(""));
        command
    }

    /// What the chart renders with these arguments.
    ///
    /// # Errors
    /// Helm's error message.
    pub(crate) fn template(self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(None);
        command.args([
            "template",
            RELEASE,
            CHART,
            "--namespace",
            NAMESPACE,
            "--kube-version",
            "1.37.0",
        ]);
        output(command.args(arguments))
    }
}

/// The default values and each file of `ci/`, as arguments of Helm.
pub(crate) fn value_sets() -> Vec<Vec<String>> {
    let mut sets = vec![vec![]];
    for name in ["everything", "namespaced"] {
        let file = format!("{CHART}/ci/{name}-values.yaml");
        assert!(repository(&file).is_file(), "{file} is missing");
        sets.push(vec!["--values".to_owned(), file]);
    }
    let found = std::fs::read_dir(repository(CHART).join("ci")).unwrap().count();
    assert_eq!(found + 1, sets.len(), "a value file in ci/ is not tested");
    sets
}

/// Borrowed, for [`Helm::template`].
pub(crate) fn arguments(set: &[String]) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

/// The objects in a rendered text, in its order.
pub(crate) fn objects(rendered: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(rendered).unwrap_or_else(|error| panic!("{error}\n{rendered}"));
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect()
}

/// `Kind namespace/name` of an object.
pub(crate) fn reference(object: &Value) -> String {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!(
        "{} {}/{}",
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name")
    )
}

/// Objects of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// Runs a command that reads this text.
pub(crate) fn fed(command: &mut Command, text: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

/// Runs a command; its standard output, or everything that it said.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.success() {
        Ok(out.into_owned())
    } else {
        Err(format!("{command:?}: {}\n{err}\n{out}", output.status))
    }
}
