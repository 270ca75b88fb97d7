//! The rules of the house that no compiler checks: who may name what, and how large things may grow.
//!
//! Each rule is a function over one file, shown here with texts that break it and texts that do not: a check that cannot
//! fail is a defect. `the_source_tree_keeps_every_rule` applies them all to `src/`.

mod rules;
mod source;

use rules::{
    FILE_LINES, FUNCTION_LINES, detached_spawns, heap_modules, imported, inside, is_in, long_file, long_functions,
    outside, rooms,
};
use source::Source;
use std::path::Path;

/// A rule gives the lines that break it.
type Rule = fn(&Source) -> Vec<usize>;

/// A rule by name, with files (path, text) that break it and files that keep it.
struct Case {
    name: &'static str,
    rule: Rule,
    broken: &'static [(&'static str, &'static str)],
    kept: &'static [(&'static str, &'static str)],
}

const RULES: &[Case] = &[
    Case {
        name: "only store/ names sqlx",
        rule: |source| outside(source, &["src/store"], &[&["sqlx"]]),
        broken: &[("src/worker/mod.rs", "use sqlx::Row;"), ("src/storefront.rs", "fn a(e: sqlx::Error) {}")],
        kept: &[("src/store/rows.rs", "use sqlx::Row;"), ("src/store.rs", "use sqlx::Row;"), ("src/a.rs", "// sqlx\n")],
    },
    Case {
        name: "only registry/ names the HTTP client",
        rule: |source| outside(source, &["src/registry"], &[&["reqwest"]]),
        broken: &[("src/replicate/survey.rs", "async fn a(c: &reqwest::Client) {}")],
        kept: &[("src/registry/http.rs", "use reqwest::Client;"), ("src/a.rs", "const A: &str = \"reqwest\";")],
    },
    Case {
        name: "store/ knows no registries, images in motion, servers or commands",
        rule: |source| rooms(source, &["store"], &["registry", "replicate", "server", "cli", "layout"]),
        broken: &[
            ("src/store/mod.rs", "use crate::registry::Client;"),
            ("src/store/sqlite/writer.rs", "use crate::{clock::Clock, job::{Job, registry}, cli};"),
            ("src/store/mod.rs", "use super::layout;"),
            ("src/store/rows.rs", "fn a() { super::super::server::b(); }"),
            ("src/store/rows.rs", "use freightliner::replicate;"),
        ],
        kept: &[
            ("src/store/mod.rs", "use crate::{clock::Clock, job::{Job, registry}};"),
            ("src/store/rows.rs", "use super::registry;"),
            ("src/worker/mod.rs", "use crate::registry::Client;"),
        ],
    },
    Case {
        name: "replicate/, registry/, layout/ and mirror/ know no store and no worker",
        rule: |source| rooms(source, &["replicate", "registry", "layout", "mirror"], &["store", "worker"]),
        broken: &[
            ("src/replicate/mod.rs", "use crate::store::Store;"),
            ("src/layout.rs", "use crate::worker;"),
            ("src/registry/http.rs", "use crate::{oci, store};"),
            ("src/mirror/listing.rs", "use crate::store::Store;"),
        ],
        kept: &[("src/replicate/mod.rs", "use crate::registry::Session;"), ("src/worker/mod.rs", "use crate::store;")],
    },
    Case {
        name: "job/ and oci/ have no async",
        rule: |source| inside(source, &["src/job", "src/oci"], &[&["async"], &["await"], &["tokio"]]),
        broken: &[("src/job/mod.rs", "pub async fn a() {}"), ("src/oci.rs", "use tokio::fs;")],
        kept: &[("src/worker/mod.rs", "async fn a() {}"), ("src/job/mod.rs", "//! no async\nfn a() {}")],
    },
    Case {
        name: "only cli/output.rs prints",
        rule: |source| {
            let macros: [&[&str]; 5] =
                [&["println", "!"], &["print", "!"], &["eprintln", "!"], &["eprint", "!"], &["dbg", "!"]];
            outside(source, &["src/cli/output.rs"], &macros)
        },
        broken: &[("src/cli/work.rs", "fn a() { println!(\"x\"); }"), ("src/main.rs", "fn a() { eprint!(\"x\"); }")],
        kept: &[("src/cli/output.rs", "fn a() { println!(\"x\"); }"), ("src/a.rs", "fn print() { print(); }")],
    },
    Case {
        name: "only clock.rs asks for the time",
        rule: |source| {
            let calls: [&[&str]; 4] = [
                &["SystemTime", "::", "now"],
                &["Instant", "::", "now"],
                &["Utc", "::", "now"],
                &["Local", "::", "now"],
            ];
            outside(source, &["src/clock.rs"], &calls)
        },
        broken: &[
            ("src/worker/lease.rs", "let a = std::time::Instant::now();"),
            ("src/sweep.rs", "let a = tokio::time::Instant::now();"),
            ("src/a.rs", "let a = .unwrap_or_else(Utc::now);"),
        ],
        kept: &[("src/clock.rs", "let a = chrono::Utc::now();"), ("src/a.rs", "let a = clock.now();")],
    },
    Case {
        name: "tasks are spawned only where they are owned",
        rule: detached_spawns,
        broken: &[
            ("src/registry/http.rs", "fn a() { tokio::spawn(b()); }"),
            ("src/replicate/transfer.rs", "fn a(set: JoinSet<()>) { tokio::task::spawn(b()); }"),
            ("src/replicate/transfer.rs", "fn a(runtime: Handle) { runtime.spawn(b()); }"),
            ("src/sweep.rs", "fn a() { std::thread::spawn(|| b()); }"),
            ("src/worker/lease.rs", "use tokio::spawn;"),
        ],
        kept: &[
            ("src/daemon.rs", "fn a() { tokio::spawn(b()); }"),
            ("src/worker/mod.rs", "fn a() { tasks.spawn(b()); }"),
            ("src/store/sqlite/writer.rs", "fn a() { std::thread::spawn(|| b()); }"),
            ("src/replicate/transfer.rs", "fn a() { let mut set = JoinSet::new(); set.spawn(b()); }"),
            ("src/registry/credential_helper.rs", "fn a() { Command::new(b).spawn(); }"),
            ("src/tempfiles.rs", "async fn a() { spawn_blocking(b).await }"),
        ],
    },
    Case {
        name: "only main.rs ends the process",
        rule: |source| {
            let mut lines =
                outside(source, &["src/main.rs"], &[&["process", "::", "exit"], &["process", "::", "abort"]]);
            if source.path != "src/main.rs" {
                lines.extend(imported(source, "process", &["exit", "abort"]));
            }
            lines
        },
        broken: &[
            ("src/cli/work.rs", "fn a() { std::process::exit(1) }"),
            ("src/cli/work.rs", "use std::process::{Command, exit};"),
        ],
        kept: &[("src/main.rs", "fn main() { std::process::exit(1) }"), ("src/a.rs", "use std::process::{Command};")],
    },
    Case {
        name: "no module is a heap of things",
        rule: heap_modules,
        broken: &[
            ("src/utils.rs", ""),
            ("src/store/common/mod.rs", ""),
            ("src/registry/helpers.rs", ""),
            ("src/a.rs", "mod b;\nmod types { }"),
        ],
        kept: &[("src/store/mod.rs", "mod rows;"), ("src/media_types.rs", "struct Types;")],
    },
    Case {
        name: "no file is over 400 lines of code",
        rule: long_file,
        // Long texts are made in `length_is_counted_in_code`.
        broken: &[],
        kept: &[("src/a.rs", "fn a() {}")],
    },
    Case {
        name: "no function is over 70 lines of code",
        rule: long_functions,
        broken: &[],
        kept: &[
            ("src/a.rs", "fn a() {}"),
            ("src/a.rs", "type A = fn(u8) -> [u8; 3];"),
            ("src/a.rs", "trait A { fn b(); }"),
        ],
    },
];

/// All files of `src/` but those that are test code.
fn source_tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                files.push(Source::new(&name, &std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let tests: Vec<String> = files.iter().flat_map(test_paths).collect();
    files.retain(|file| !tests.iter().any(|test| is_in(&file.path, &[test])));
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files
}

/// The modules, as paths without `.rs`, that a file declares as test code.
fn test_paths(source: &Source) -> Vec<String> {
    let base = source.path.trim_end_matches(".rs");
    let folder = match base.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder,
        _ => base,
    };
    source.test_modules.iter().map(|module| format!("{folder}/{module}")).collect()
}

#[test]
fn the_source_tree_keeps_every_rule() {
    let files = source_tree();
    assert!(files.iter().any(|file| file.path == "src/main.rs"), "the source tree was not found");
    let mut broken = Vec::new();
    for file in &files {
        for case in RULES {
            let lines = (case.rule)(file);
            broken.extend(lines.iter().map(|line| format!("{}:{line}: {}", file.path, case.name)));
        }
    }
    assert!(broken.is_empty(), "rules of DESIGN.md section 2 are broken:\n{}", broken.join("\n"));
}

#[test]
fn every_rule_can_be_broken_and_kept() {
    for case in RULES {
        for (path, text) in case.broken {
            assert!(!(case.rule)(&Source::new(path, text)).is_empty(), "{}: not noticed in {path}: {text}", case.name);
        }
        for (path, text) in case.kept {
            let lines = (case.rule)(&Source::new(path, text));
            assert!(lines.is_empty(), "{}: wrongly found in {path}, {lines:?}: {text}", case.name);
        }
        let shown_elsewhere = case.name.ends_with("lines of code");
        assert!(shown_elsewhere || !case.broken.is_empty(), "{}: nothing shows that it can fail", case.name);
    }
}

#[test]
fn length_is_counted_in_code() {
    let file = |lines: usize| Source::new("src/a.rs", &"// comment\n\nconst A: u8 = 1;\n".repeat(lines));
    assert!(long_file(&file(FILE_LINES)).is_empty());
    assert!(!long_file(&file(FILE_LINES + 1)).is_empty());
    let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 1;\n".repeat(FILE_LINES));
    assert!(long_file(&Source::new("src/a.rs", &tested)).is_empty());

    let function = |lines: usize| {
        let body = "    // comment\n\n    b();\n".repeat(lines);
        Source::new("src/a.rs", &format!("\nfn a() -> [u8; 2] {{\n{body}}}\nfn c() {{}}\n"))
    };
    assert!(long_functions(&function(FUNCTION_LINES - 2)).is_empty());
    assert_eq!(long_functions(&function(FUNCTION_LINES - 1)), [2]);
}

#[test]
fn files_of_test_modules_are_found() {
    let paths = |path| test_paths(&Source::new(path, "#[cfg(test)]\nmod tests;"));
    assert_eq!(paths("src/oci/mod.rs"), ["src/oci/tests"]);
    assert_eq!(paths("src/tempfiles.rs"), ["src/tempfiles/tests"]);
    assert_eq!(paths("src/lib.rs"), ["src/tests"]);
}
