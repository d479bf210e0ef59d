//! House rules.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(!found.is_empty());
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The code without its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

#[test]
fn rules_are_pure() {
    for (path, text) in sources("src/protocol").into_iter().chain(sources("src/session")) {
        for forbidden in ["async ", ".await", "tokio::", "tracing::", "::now(", "reqwest", "Clock"] {
            assert!(!code(&text).contains(forbidden), "{forbidden} in {path:?}");
        }
    }
}

#[test]
fn one_place_writes_the_registry() {
    for (path, text) in sources("src") {
        let is_allowed = path.to_string_lossy().contains("src/manager/")
            || path.to_string_lossy().contains("src/registry/")
            || path.to_string_lossy().contains("src/test_provider/");
        for write in ["registry.create(", "registry.commit(", "registry.end(", "registry.end_matching("] {
            assert!(is_allowed || !text.contains(write), "{write} in {path:?}");
        }
    }
}

#[test]
fn public_async_functions_say_what_cancelling_does() {
    for (path, text) in sources("src") {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !line.trim_start().starts_with("pub async fn") {
                continue;
            }
            let docs = lines[..number].iter().rev().take_while(|line| {
                let line = line.trim_start();
                line.starts_with("///") || line.starts_with("#[")
            });
            let is_documented = docs.into_iter().any(|line| line.contains("# Cancel safety"));
            assert!(is_documented, "{path:?}:{}", number + 1);
        }
    }
}

#[test]
fn the_readme_and_the_architecture_are_short() {
    for (file, longest) in [("README.md", 150), ("ARCHITECTURE.md", 100)] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(text.lines().count() <= longest, "{file}");
    }
}
