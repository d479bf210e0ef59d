//! House rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
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
fn pauses_go_by_no_clock_that_can_be_set() {
    for (path, text) in sources("src") {
        // The default of `Clock::sleep` is for clocks that nobody sets.
        let is_pause = |line: &str| line.contains("sleep_until(") && line.contains("now() +");
        let found = code(&text).lines().any(is_pause) && !path.ends_with("src/clock.rs");
        assert!(!found, "{path:?}: Clock::sleep is for pauses");
    }
}

/// The floors of the house, from the top down, as ARCHITECTURE.md shows them. `test_provider` stands beside.
const FLOORS: [&str; 16] = [
    "lib",
    "fuzzing",
    "relying_parties",
    "builder",
    "profile",
    "relying_party",
    "api",
    "web",
    "calls",
    "manager",
    "provider",
    "test_provider",
    "registry",
    "session",
    "error",
    "protocol",
];
/// What all may stand on.
const GROUND: &str = "clock";

/// The modules of the crate by path, as `web::routes::login`, each with its code.
fn modules() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let name = |path: &Path| {
        let path = path.strip_prefix(&src).unwrap().with_extension("");
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
        parts.join("::")
    };
    sources("src").into_iter().map(|(path, text)| (name(&path), code(&text).to_owned())).collect()
}

/// The modules that a module imports from.
fn imports(name: &str, code: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let parent = name.rsplit_once("::").map_or("", |(parent, _)| parent);
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (prefix, base) in [("crate::", ""), ("super::", parent), ("self::", name)] {
        for (at, _) in code.match_indices(prefix) {
            // `$crate::`, `pub(in crate::…)`, `super::super::` and longer words are others' business.
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || "_$:".contains(c)) {
                continue;
            }
            let path: String =
                code[at + prefix.len()..].chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
            let rest = &code[at + prefix.len() + path.len()..];
            let group = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(group, _)| group);
            for item in group.split(',').chain([""]) {
                let mut target: Vec<&str> = base
                    .split("::")
                    .chain(path.split("::"))
                    .chain([item.trim()])
                    .filter(|part| !part.is_empty())
                    .collect();
                while !target.is_empty() && !modules.contains_key(&target.join("::")) {
                    target.pop();
                }
                if !target.is_empty() && target.join("::") != name {
                    found.insert(target.join("::"));
                }
            }
        }
    }
    found
}

fn floor(module: &str) -> usize {
    let room = module.split("::").next().unwrap();
    let floors = FLOORS.iter().position(|floor| *floor == room);
    floors.or((room == GROUND).then_some(FLOORS.len())).unwrap_or_else(|| panic!("{room} has no floor"))
}

#[test]
fn imports_point_down() {
    let modules = modules();
    for (name, code) in &modules {
        for target in imports(name, code, &modules) {
            assert!(floor(&target) >= floor(name), "{name} imports {target}, which is on a floor above");
        }
    }
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    fn visit(
        name: &str,
        graph: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) {
        assert!(!path.iter().any(|on_path| on_path == name), "a circle of imports: {path:?} and back to {name}");
        if done.contains(name) {
            return;
        }
        path.push(name.to_owned());
        for target in &graph[name] {
            visit(target, graph, path, done);
        }
        path.pop();
        done.insert(name.to_owned());
    }
    let modules = modules();
    // The test provider is one thing in several files, beside the house.
    let is_house = |name: &&String| !name.starts_with("test_provider");
    let graph: BTreeMap<_, _> = modules
        .iter()
        .filter(|(name, _)| is_house(name))
        .map(|(name, code)| {
            (name.clone(), imports(name, code, &modules).into_iter().filter(|t| is_house(&t)).collect())
        })
        .collect();
    let mut done = BTreeSet::new();
    for name in graph.keys() {
        visit(name, &graph, &mut Vec::new(), &mut done);
    }
    assert!(graph["manager::signal"].contains("session::signal"), "the imports are read");
    assert!(graph["web::routes"].len() > 1, "{:?}", graph["web::routes"]);
}

/// ADR 17: what others could match or build in full is `#[non_exhaustive]`, or says why it is not.
#[test]
fn public_types_say_whether_they_may_grow() {
    let mut seen = 0;
    for (path, text) in sources("src") {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let has_public_field = || {
                let mut body = lines[at + 1..].iter().take_while(|line| **line != "}");
                line.contains("(pub ") || line.ends_with('{') && body.any(|line| line.starts_with("pub "))
            };
            let is_unit = || line.ends_with(';') && !line.contains('(');
            let is_open =
                line.starts_with("pub enum ") || line.starts_with("pub struct ") && (is_unit() || has_public_field());
            if !is_open {
                continue;
            }
            seen += 1;
            let mut before =
                lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("///"));
            let is_said =
                before.any(|line| line.starts_with("#[non_exhaustive]") || line.starts_with("/// Exhaustive: "));
            assert!(is_said, "{path:?}: {line}");
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn one_place_writes_the_registry() {
    // All methods of the contract that change the store.
    let writes =
        ["spend", "create", "claim_refresh", "release_refresh", "commit", "end", "end_matching", "remove_expired"];
    let contract = modules()["registry"].clone();
    for method in contract.split("async fn ").skip(1).map(|rest| rest.split('(').next().unwrap()) {
        assert!(
            ["count", "has_sibling", "load", "sessions_of", "sessions_with_sid", "time"].contains(&method)
                || writes.contains(&method),
            "{method} is a new method of the registry: does it write?"
        );
    }
    for (name, code) in modules() {
        let room = name.split("::").next().unwrap();
        for write in writes {
            let is_written =
                code.contains(&format!("registry.{write}(")) || code.contains(&format!("registry\n.{write}("));
            let is_allowed = matches!(room, "manager" | "registry" | "test_provider");
            assert!(is_allowed || !is_written, "{name} calls {write} of the registry");
        }
    }
}

#[test]
fn one_place_reads_the_time() {
    for (name, code) in modules() {
        // The registry in memory is a store, which has a clock of its own.
        let is_shell = matches!(name.split("::").next().unwrap(), "manager" | "provider" | "clock" | "test_provider")
            || name.starts_with("registry::memory");
        assert!(is_shell || !code.contains("clock.now()"), "{name} reads the clock");
        // What is timed on a socket is real: bodies, connections, stores.
        let is_socket = [
            "calls::",
            "provider::http",
            "provider::signing_key",
            "web::routes::backchannel_logout",
            "web::routes::receiver",
            "web::routes::security_events",
            "web::routes::frontchannel_logout",
            "web::keep_form",
            "web::tenants",
            "web::upgrade",
            "api::response",
            "registry::",
            "test_provider",
        ];
        let is_timed = code.contains("tokio::time::") && !is_socket.iter().any(|room| name.starts_with(room));
        assert!(!is_timed || name == "clock", "{name} waits by another clock than ours");
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

/// A constant of time, number or size: where it is, its name, its value and its reason.
fn constants() -> Vec<[String; 4]> {
    let mut found = Vec::new();
    for (path, text) in sources("src") {
        let file = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().display().to_string();
        let name = path.file_stem().unwrap().to_string_lossy();
        let is_of_tests =
            ["model", "properties", "samples", "strategies", "tests"].iter().any(|end| name.ends_with(end));
        if file.starts_with("fuzzing") || file.starts_with("test_provider") || is_of_tests {
            continue;
        }
        let lines: Vec<&str> = code(&text).lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some((_, rest)) = line.split_once("const ").filter(|(before, _)| before.trim_start().len() < 12) else {
                continue;
            };
            let Some((name, rest)) = rest.split_once(": ") else { continue };
            let Some((kind, value)) = rest.trim_end_matches(';').split_once(" = ") else { continue };
            if !["Duration", "usize", "u64", "u32"].contains(&kind) || name.ends_with("LENGTH") {
                continue;
            }
            let above = lines[..number].iter().rev().take_while(|line| line.trim_start().starts_with("///"));
            let mut reason: Vec<&str> = above.map(|line| line.trim_start().trim_start_matches('/').trim()).collect();
            reason.reverse();
            let plain = |text: &str| text.replace(['[', ']'], "").replace('|', "\\|");
            found.push([file.clone(), name.to_owned(), plain(value), plain(&reason.join(" "))]);
        }
    }
    found.sort();
    found
}

/// The page of constants is what the source says; `BLESS=1` writes it.
#[test]
fn every_constant_has_its_reason_in_the_manual() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/constants.md");
    let mut page =
        "Every time, number and size that is not a setting, with its reason. Written by a test from the source.\n\n\
                    | where | constant | value | why |\n|---|---|---|---|\n"
            .to_owned();
    for [file, name, value, reason] in constants() {
        assert!(!reason.is_empty(), "{file}: {name} has no reason");
        writeln!(page, "| `{file}` | `{name}` | `{value}` | {reason} |").unwrap();
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), page, "BLESS=1 cargo test --test it constant");
}

/// Each metric is described, and in the documentation.
#[test]
fn every_metric_is_described() {
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        words.filter(|word| word.starts_with("oidc_") && word.len() > 5).map(str::to_owned).collect()
    };
    let mut used = BTreeSet::new();
    for (path, text) in sources("src") {
        if !path.ends_with("describe.rs") && !path.ends_with("lib.rs") {
            let lines = code(&text).lines().filter(|line| line.contains("metrics::"));
            used.extend(lines.flat_map(names));
        }
    }
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    assert!(used.len() > 5, "{used:?}");
    assert_eq!(names(&read("src/manager/describe.rs")), used);
    let documented = names(&read("src/lib.rs"));
    assert!(used.is_subset(&documented), "{documented:?}");
}

/// The tests that the tables of a page name, in their last column: words with several underscores, and names with blanks, which
/// are the browser's.
fn tests_named_in(page: &str) -> BTreeSet<&str> {
    let cells = page.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.rsplit('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.filter(|name| name.contains(' ') || name.matches('_').count() > 1).collect()
}

/// What the manual names is there.
#[test]
fn the_tests_that_the_manual_names_are_there() {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let code: String = ["src", "tests"].iter().flat_map(|folder| sources(folder)).map(|(_, text)| text).collect();
    let browsers = read("tests/browser/suite.mjs");
    for (page, least) in [("docs/lessons.md", 20), ("docs/security.md", 100)] {
        let text = read(page);
        let named = tests_named_in(&text);
        assert!(named.len() >= least, "{page}: {named:?}");
        for name in named {
            let is_there = if name.contains(' ') {
                browsers.contains(&format!("test(\"{name}\""))
            } else {
                code.contains(&format!("fn {name}("))
            };
            assert!(is_there, "{page}: {name}");
        }
    }
}
