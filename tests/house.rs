//! The structure of the code: modules of each crate depend on each other in one direction, and the files that
//! CONTRIBUTING and the page on the architecture name exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Where the sources of the programs are.
const CRATES: [&str; 3] = ["src", "inference-image/src", "inference-image/fetch/src"];
/// A newcomer reads the top level first.
const FILES_AT_THE_TOP: usize = 10;

/// A module by its path from the root of its crate.
type Module = Vec<String>;
/// For each module, the modules that it uses.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Otherwise a step of the reconcile can no longer be read, tested or moved by itself.
#[test]
fn rooms_depend_on_each_other_in_one_direction() {
    for root in CRATES {
        let mut rooms = Graph::new();
        for (module, used) in graph(&repository(root)) {
            let room = module[..1].to_vec();
            let used = used.iter().map(|used| used[..1].to_vec());
            let used: Vec<Module> = used.filter(|used| *used != room).collect();
            rooms.entry(room).or_default().extend(used);
        }
        assert_acyclic(root, &rooms);
    }
}

/// Inside a room, the same applies to its files: a file imports its siblings, never the `mod.rs` that combines them.
#[test]
fn files_depend_on_each_other_in_one_direction() {
    for root in CRATES {
        assert_acyclic(root, &graph(&repository(root)));
    }
}

/// Everything with a topic has a room; the top level is for the rest.
#[test]
fn the_top_level_has_at_most_ten_files() {
    for root in CRATES {
        let entries = fs::read_dir(repository(root)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
        assert!(files.len() <= FILES_AT_THE_TOP, "{root} has {files:#?}");
    }
}

/// A map that names files that have moved misleads its readers.
#[test]
fn the_files_that_contributing_names_exist() {
    for page in ["CONTRIBUTING.md", "docs/architecture.md"] {
        let text = fs::read_to_string(repository(page)).unwrap();
        let prose: Vec<&str> = text.split("```").step_by(2).collect();
        let prose = prose.join("");
        let code = prose.split('`').skip(1).step_by(2);
        let suffixes = [".rs", ".md", ".yaml", ".toml", ".proto", "/"];
        let paths: Vec<&str> = code
            .filter(|code| code.contains('/') && !code.contains([' ', '<', '…', ':']))
            .filter(|code| suffixes.iter().any(|suffix| code.ends_with(suffix)) || code.starts_with("src/"))
            .collect();
        assert!(paths.len() > 20, "{page}: only {paths:?} were found");
        for path in paths {
            // `crds/*.yaml` stands for a folder.
            let folder = path.split_once("/*").map_or(path, |(folder, _)| folder);
            assert!(
                repository(folder).exists(),
                "{page} names {path}, which does not exist"
            );
        }
    }
}

/// Tests the test: it finds a cycle and prints all of it.
#[test]
fn a_cycle_is_found() {
    let module = |name: &str| vec![name.to_owned()];
    let edges = [("a", "b"), ("b", "c"), ("c", "b")];
    let mut graph = Graph::new();
    for (from, to) in edges {
        graph.entry(module(from)).or_default().insert(module(to));
    }
    assert_eq!(cycle(&graph).unwrap(), ["b", "c", "b"].map(module));
    graph.remove(&module("c"));
    assert_eq!(cycle(&graph), None);
}

#[test]
fn paths_are_read_from_use_trees_and_expressions() {
    let code = "use crate::{a::{self, B}, c::D as E}; // crate::comment\nfn f() { super::g::h(); i::j(); }";
    let mut paths = paths(&tokens(code));
    paths.sort();
    let found: Vec<String> = paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "crate::a::B",
            "crate::a::self",
            "crate::c::D",
            "i::j",
            "super::g::h"
        ]
    );
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn assert_acyclic(root: &str, graph: &Graph) {
    assert!(graph.values().map(BTreeSet::len).sum::<usize>() > 10, "{root}");
    if let Some(cycle) = cycle(graph) {
        let modules: Vec<String> = cycle.iter().map(|module| module.join("::")).collect();
        panic!("{root} has a cycle: {}", modules.join(" → "));
    }
}

/// A cycle, if there is one, from a module back to itself.
fn cycle(graph: &Graph) -> Option<Vec<Module>> {
    let mut done = BTreeSet::new();
    graph
        .keys()
        .find_map(|module| visit(graph, module, &mut Vec::new(), &mut done))
}

fn visit(
    graph: &Graph,
    module: &Module,
    path: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    if let Some(start) = path.iter().position(|known| known == module) {
        let mut cycle = path[start..].to_vec();
        cycle.push(module.clone());
        return Some(cycle);
    }
    if done.contains(module) {
        return None;
    }
    path.push(module.clone());
    let found = graph
        .get(module)
        .into_iter()
        .flatten()
        .find_map(|used| visit(graph, used, path, done));
    path.pop();
    done.insert(module.clone());
    found
}

/// Which module of a crate uses which, tests aside.
fn graph(root: &Path) -> Graph {
    let sources = sources(root);
    let mut graph = Graph::new();
    for (module, code) in &sources {
        let used = paths(&tokens(code)).into_iter();
        let used = used.filter_map(|path| resolve(module, &path, &sources));
        graph.insert(module.clone(), used.filter(|used| used != module).collect());
    }
    graph
}

/// The module that a path of `module` leads to.
fn resolve(module: &Module, path: &[String], sources: &BTreeMap<Module, String>) -> Option<Module> {
    let mut target = match path[0].as_str() {
        "crate" => Module::new(),
        "super" => module[..module.len() - 1].to_vec(),
        _ => module.clone(),
    };
    let is_relative = !matches!(path[0].as_str(), "crate" | "super" | "self");
    let mut segments = path.iter().skip(usize::from(!is_relative)).peekable();
    while segments.next_if(|segment| *segment == "super").is_some() {
        target.pop();
    }
    let start = target.len();
    for segment in segments {
        target.push(segment.clone());
        if !sources.contains_key(&target) {
            target.pop();
            break;
        }
    }
    // A path that does not begin with a child of this module is another crate or a type.
    let is_found = !target.is_empty() && (!is_relative || target.len() > start);
    is_found.then_some(target)
}

/// The code of each module of a crate, without its tests.
fn sources(root: &Path) -> BTreeMap<Module, String> {
    let mut sources = BTreeMap::new();
    let mut tests = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = module(path.strip_prefix(root).unwrap());
                let (code, own_tests) = without_tests(&fs::read_to_string(&path).unwrap());
                tests.extend(
                    own_tests
                        .into_iter()
                        .map(|name| [module.clone(), vec![name]].concat()),
                );
                sources.insert(module, code);
            }
        }
    }
    // The root only lists the modules.
    sources.retain(|module, _| !module.is_empty() && !tests.contains(module));
    sources
}

/// The module of a file.
fn module(path: &Path) -> Module {
    let mut module: Module = path
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// A file without the parts that are compiled only for tests, and the names of its test modules that are files.
fn without_tests(text: &str) -> (String, Vec<String>) {
    let (mut code, mut tests) = (String::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push_str(line);
            code.push('\n');
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let Some(item) = lines.find(|line| !line.trim().starts_with("#[")) else {
            break;
        };
        if let Some(declaration) = item.strip_suffix(';') {
            tests.extend(declaration.split_once("mod ").map(|(_, name)| name.to_owned()));
        } else {
            lines.find(|line| *line == end);
        }
    }
    (code, tests)
}

/// Words and the punctuation between them, without comments.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for line in code.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let mut word = String::new();
        for symbol in line.chars() {
            if symbol.is_alphanumeric() || symbol == '_' {
                word.push(symbol);
                continue;
            }
            if !word.is_empty() {
                tokens.push(std::mem::take(&mut word));
            }
            match (symbol, tokens.last().map(String::as_str)) {
                (':', Some(":")) => *tokens.last_mut().unwrap() = "::".to_owned(),
                _ if symbol.is_whitespace() => {}
                _ => tokens.push(symbol.to_string()),
            }
        }
        if !word.is_empty() {
            tokens.push(word);
        }
    }
    tokens
}

/// Every path of at least two segments, including expanded `use` trees.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let begins = tokens.get(at + 1).is_some_and(|next| next == "::") && is_word(&tokens[at]);
        let continues = at > 0 && tokens[at - 1] == "::";
        if begins && !continues {
            at = tree(tokens, at, &[], &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

/// Reads a path or a `use` tree; returns where it ends.
fn tree(tokens: &[String], mut at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") if !path.is_empty() => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    if is_word(&tokens[at]) {
                        at = tree(tokens, at, &path, paths);
                    }
                    // A comma, or an alias.
                    while tokens.get(at).is_some_and(|token| token != "}" && token != ",") {
                        at += 1;
                    }
                    at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
                }
                return at + 1;
            }
            Some(word) if is_word(word) => path.push(word.to_owned()),
            _ => break,
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    paths.push(path);
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}
