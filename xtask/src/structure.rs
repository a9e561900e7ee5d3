//! What ARCHITECTURE.md says about where things stand, held against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask stands in the workspace")
        .to_owned()
}

/// The folders of the crates.
fn crates() -> Vec<PathBuf> {
    let subfolders = |dir: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).expect("the workspace can be read");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let folders = subfolders(root()).into_iter().chain(subfolders(root().join("crates")));
    let mut crates: Vec<_> = folders.filter(|dir| dir.join("Cargo.toml").is_file()).collect();
    crates.sort();
    crates
}

/// Every Rust file under `dir`, with its text.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            found.push((path, text));
        }
    }
    found.sort();
    found
}

/// The lines of code of a file: without comments, and without the tests at its end.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !(line.starts_with("#[cfg(") && line.contains("test")))
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// The places in the crates' sources, but for the folders `allowed`, whose code holds one of `words`.
fn places_of(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut places = Vec::new();
    for folder in crates() {
        for (path, text) in sources(&folder.join("src")) {
            let path = path.strip_prefix(root()).expect("it is of this workspace");
            if allowed.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            let lines = code(&text).filter(|line| words.iter().any(|word| line.contains(word)));
            places.extend(lines.map(|line| format!("{}: {}", path.display(), line.trim())));
        }
    }
    places
}

/// The modules of a crate by their paths, such as `ops::host`, and the text of each.
fn modules(crate_dir: &Path) -> BTreeMap<String, String> {
    let src = crate_dir.join("src");
    let mut modules = BTreeMap::new();
    for (path, text) in sources(&src) {
        let path = path.strip_prefix(&src).expect("it is of this crate").with_extension("");
        let mut names: Vec<_> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if ["mod", "lib", "main"].contains(&names.last().map_or("", String::as_str)) {
            names.pop();
        }
        modules.insert(names.join("::"), text);
    }
    modules
}

/// The paths that `use` declarations and expressions of a module name, from the root of the crate: `super` and `self` are
/// resolved, groups are taken apart.
fn paths(module: &str, text: &str) -> BTreeSet<String> {
    let text = code(text).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let mut scope: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
            let mut rest = &text[at..];
            if start == "crate::" {
                scope.clear();
            }
            while let Some(after) = rest.strip_prefix("super::") {
                scope.pop();
                rest = after;
            }
            rest = rest
                .strip_prefix("crate::")
                .or(rest.strip_prefix("self::"))
                .unwrap_or(rest);
            for path in expand(rest) {
                let path = scope
                    .iter()
                    .copied()
                    .chain([path.as_str()])
                    .collect::<Vec<_>>()
                    .join("::");
                found.insert(path);
            }
        }
    }
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`; anything after the path is left out.
fn expand(text: &str) -> Vec<String> {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    if !(head.ends_with("::") && tail.starts_with('{')) {
        return vec![head.trim_end_matches(':').to_owned()];
    }
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in tail.chars() {
        match c {
            '{' if depth == 0 => depth = 1,
            '}' if depth == 1 => break,
            ',' if depth == 1 => items.push(std::mem::take(&mut item)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                item.push(c);
            }
        }
    }
    items.push(item);
    let items = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    items.flat_map(expand).map(|item| format!("{head}{item}")).collect()
}

/// For each module the modules that it takes something from. A name that a module only passes on counts as its source's.
/// A folder and what is in it are nested by the language, so the two may name each other.
fn imports(modules: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    for (module, text) in modules {
        let targets = paths(module, text)
            .into_iter()
            .filter_map(|path| owner(modules, &path, 0));
        let nested = |target: &String| {
            let inside = |outer: &str, inner: &str| outer.is_empty() || inner.starts_with(&format!("{outer}::"));
            target == module || inside(target, module) || inside(module, target)
        };
        // The trait's default methods are the references, and some of those are made of other methods of the trait.
        let default_method = |target: &String| {
            module == "ops::backend" && (target == "ops::block" || target.starts_with("ops::reference"))
        };
        let targets = targets.filter(|target| !nested(target) && !default_method(target));
        imports.insert(module.clone(), targets.collect());
    }
    imports
}

/// The module that defines what `path` names.
fn owner(modules: &BTreeMap<String, String>, path: &str, depth: usize) -> Option<String> {
    let mut module = path;
    while !modules.contains_key(module) {
        module = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    }
    let name = path[module.len()..].trim_start_matches("::").split("::").next()?;
    if name.is_empty() || depth > 4 {
        return Some(module.to_owned());
    }
    let text = code(&modules[module]).collect::<Vec<_>>().join("\n");
    for (at, _) in text.match_indices("use ") {
        let line_start = text[..at].rsplit('\n').next().unwrap_or_default();
        if !line_start.trim_start().starts_with("pub") {
            continue;
        }
        for import in expand(&text[at + 4..]) {
            if import.rsplit("::").next() == Some(name) {
                let import = import.strip_prefix("crate::").map_or_else(
                    || [module, import.trim_start_matches("self::")].join("::"),
                    str::to_owned,
                );
                return owner(modules, import.trim_start_matches("::"), depth + 1);
            }
        }
    }
    Some(module.to_owned())
}

/// A circle among `imports`, if there is one.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        module: &'a str,
        imports: &'a BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|&visited| visited == module) {
            let circle = path[start..].iter().chain([&module]);
            return Some(circle.map(|&module| module.to_owned()).collect());
        }
        if !done.insert(module) {
            return None;
        }
        path.push(module);
        let found = imports[module].iter().find_map(|next| visit(next, imports, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|module| visit(module, imports, &mut Vec::new(), &mut done))
}

#[test]
fn no_crate_has_a_circle_of_imports() {
    let crates = crates();
    assert!(crates.len() >= 8, "{crates:?}");
    let circles: Vec<_> = crates
        .iter()
        .filter_map(|dir| Some((dir, circle(&imports(&modules(dir)))?)))
        .collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn a_circle_is_found_through_groups_and_passed_on_names() {
    let modules = |c: &str| {
        BTreeMap::from([
            (String::new(), "mod a; mod b;".to_owned()),
            ("a".to_owned(), "use crate::b::{X, deep::Y};".to_owned()),
            (
                "b".to_owned(),
                "mod deep;\npub use self::deep::X;\npub(crate) use deep::Z;".to_owned(),
            ),
            (
                "b::deep".to_owned(),
                "pub struct X;\npub struct Y;\npub struct Z;".to_owned(),
            ),
            ("c".to_owned(), c.to_owned()),
        ])
    };
    assert_eq!(circle(&imports(&modules("use crate::a;"))), None);
    let mut circular = modules("use super::a::A;");
    circular.insert("b::deep".into(), "use crate::c::C;".into());
    let found = circle(&imports(&circular)).unwrap();
    assert_eq!(found, ["a", "b::deep", "c", "a"]);
}

#[test]
fn the_learner_has_one_room() {
    let found = places_of(&["burn::train", "burn_train"], &["gpt2-train/src/learner", "xtask"]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn backends_are_named_in_one_crate() {
    let types = [
        "burn_ndarray::",
        "burn_flex::",
        "burn_cuda::",
        "burn_wgpu::",
        "NdArrayDevice",
        "FlexDevice",
        "CudaDevice",
        "WgpuDevice",
    ];
    // A backend's own operations need its tensors.
    let allowed = [
        "crates/gpt2-backend/src",
        "gpt2-model/src/ops",
        // The one place that compiles a model for each.
        "gpt2-model/src/inference.rs",
        "gpt2-kernels/src",
        "gpt2-cubecl/src",
        "fuzz/src",
        "xtask",
    ];
    let found = places_of(&types, &allowed);
    assert!(found.is_empty(), "{found:#?}");
    let strings = ["\"DSD-", "\"DSU-", "allocate buffer of size"];
    let found = places_of(&strings, &["crates/gpt2-backend/src", "xtask"]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn libraries_know_no_flags() {
    let found = places_of(&["`--", "\"--", " --"], &["gpt2-cli/src", "xtask"]);
    // Commands of other programs, and variables of style sheets.
    let found: Vec<_> = found
        .into_iter()
        .filter(|line| {
            ![
                "cargo build ",
                "--gpu-architecture",
                "--include-path",
                "`hf download",
                "--security-opt",
                "role(\"--",
            ]
            .iter()
            .any(|known| line.contains(known))
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn schedule_and_cost_do_no_input_or_output() {
    for file in [
        "gpt2-train/src/schedule.rs",
        "gpt2-model/src/cost.rs",
        "gpt2-model/src/capabilities.rs",
    ] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for word in ["std::fs", "std::io", "std::env", "File", "Instant", "println"] {
            assert!(code(&text).all(|line| !line.contains(word)), "{file}: {word}");
        }
    }
}

#[test]
fn data_and_model_know_nothing_of_each_other() {
    for (manifest, other) in [
        ("gpt2-data", "gpt2-model"),
        ("gpt2-model", "gpt2-data"),
        ("gpt2-data", "burn"),
        ("crates/gpt2-backend", "gpt2-train"),
        ("crates/gpt2-eval", "gpt2-train"),
    ] {
        let text = fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
        let dependencies = text
            .split("[dependencies]")
            .nth(1)
            .unwrap()
            .split("\n[")
            .next()
            .unwrap();
        assert!(!dependencies.contains(other), "{manifest} depends on {other}");
    }
}
