//! The rules as functions over one file; each gives the lines that break it.

use super::source::{Source, Token};

/// Most lines of code (no blank lines, comments, tests) of a file.
pub const FILE_LINES: usize = 400;
/// Most lines of code of a function, from its `fn` to its closing brace.
pub const FUNCTION_LINES: usize = 70;

/// Whether a file is one of these rooms: `src/store` is `src/store.rs` and all below `src/store/`.
pub fn is_in(path: &str, rooms: &[&str]) -> bool {
    rooms.iter().any(|room| {
        path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
    })
}

/// Lines with one of these sequences in a file that is in none of the rooms.
pub fn outside(source: &Source, rooms: &[&str], sequences: &[&[&str]]) -> Vec<usize> {
    if is_in(&source.path, rooms) { Vec::new() } else { any_of(source, sequences) }
}

/// Lines with one of these sequences in a file that is in one of the rooms.
pub fn inside(source: &Source, rooms: &[&str], sequences: &[&[&str]]) -> Vec<usize> {
    if is_in(&source.path, rooms) { any_of(source, sequences) } else { Vec::new() }
}

fn any_of(source: &Source, sequences: &[&[&str]]) -> Vec<usize> {
    sequences.iter().flat_map(|sequence| source.lines_with(sequence)).collect()
}

/// Lines where a file of one of the rooms `from` names one of the rooms `to`.
pub fn rooms(source: &Source, from: &[&str], to: &[&str]) -> Vec<usize> {
    let module: Vec<&str> = source.path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    if !from.contains(&module[0]) {
        return Vec::new();
    }
    // So many `super` lead from this file to the crate's root.
    let depth = module.len() - usize::from(module.last() == Some(&"mod"));
    let mut root = vec!["super"; depth].join(" :: ");
    root.push_str(" ::");
    let roots = ["crate ::", "freightliner ::", root.as_str()];
    let starts = roots.map(|root| root.split(' ').collect::<Vec<_>>());
    let mut lines = Vec::new();
    for at in 0..source.tokens.len() {
        let before = at.checked_sub(1).map(|before| source.tokens[before].text.as_str());
        let begins = |start: &Vec<&str>| {
            let found = source.tokens[at..].iter().map(|token| token.text.as_str());
            before != Some("::") && found.take(start.len()).eq(start.iter().copied())
        };
        if let Some(start) = starts.iter().find(|start| begins(start)) {
            let named = heads(&source.tokens[at + start.len()..]);
            lines.extend(named.into_iter().filter(|token| to.contains(&token.text.as_str())).map(|token| token.line));
        }
    }
    lines
}

/// What a path goes on with: the next name, or the first name of every entry of a group in braces.
fn heads(tokens: &[Token]) -> Vec<&Token> {
    if tokens.first().is_none_or(|token| token.text != "{") {
        return tokens.first().into_iter().collect();
    }
    let (mut depth, mut found, mut at_start) = (0, Vec::new(), true);
    for token in tokens {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," if depth == 1 => at_start = true,
            _ if depth == 1 && std::mem::take(&mut at_start) => found.push(token),
            _ => {}
        }
    }
    found
}

/// Lines where one of the names is taken from a module by a group in braces.
pub fn imported(source: &Source, module: &str, names: &[&str]) -> Vec<usize> {
    let mut lines = Vec::new();
    for at in 2..source.tokens.len() {
        let text = |index: usize| source.tokens[index].text.as_str();
        if text(at - 2) == module && text(at - 1) == "::" && text(at) == "{" {
            let named = heads(&source.tokens[at..]).into_iter();
            lines.extend(named.filter(|token| names.contains(&token.text.as_str())).map(|token| token.line));
        }
    }
    lines
}

/// Spawns of tasks and threads that nobody is known to own.
///
/// `spawn_blocking` is not one (it is awaited in place), nor is `.spawn()` without arguments, which starts a process.
pub fn detached_spawns(source: &Source) -> Vec<usize> {
    let owners =
        ["src/daemon.rs", "src/worker/mod.rs", "src/store/sqlite", "src/store/postgres", "src/store/writer.rs"];
    if is_in(&source.path, &owners) {
        return Vec::new();
    }
    let has_join_set = source.tokens.iter().any(|token| token.text == "JoinSet");
    let mut lines = Vec::new();
    for window in source.tokens.windows(4) {
        let [before, name, after, argument] = [0, 1, 2, 3].map(|at| window[at].text.as_str());
        if !matches!(name, "spawn" | "spawn_local" | "spawn_on") {
            continue;
        }
        let owned = has_join_set || argument == ")";
        if before == "::" || (before == "." && after == "(" && !owned) {
            lines.push(window[1].line);
        }
    }
    // A path at the very end of a file, as in an import, is too short for the window above.
    if let [.., path, name, end] = &source.tokens[..]
        && (path.text.as_str(), name.text.as_str(), end.text.as_str()) == ("::", "spawn", ";")
    {
        lines.push(name.line);
    }
    lines
}

pub fn heap_modules(source: &Source) -> Vec<usize> {
    const NAMES: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "types", "misc"];
    let mut lines: Vec<usize> = NAMES.iter().flat_map(|name| source.lines_with(&["mod", name])).collect();
    if source.path.split(['/', '.']).any(|part| NAMES.contains(&part)) {
        lines.push(1);
    }
    lines
}

pub fn long_file(source: &Source) -> Vec<usize> {
    let all = source.code.lines().count();
    if all > 0 && source.code_lines(1, all) > FILE_LINES { vec![all] } else { Vec::new() }
}

pub fn long_functions(source: &Source) -> Vec<usize> {
    let mut lines = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let named = source.tokens.get(at + 1).is_some_and(|next| next.text != "(");
        if token.text == "fn" && named {
            let last = end_of_item(&source.tokens[at..]);
            if source.code_lines(token.line, last) > FUNCTION_LINES {
                lines.push(token.line);
            }
        }
    }
    lines
}

/// The line of the brace or semicolon that ends the item at the start.
fn end_of_item(tokens: &[Token]) -> usize {
    let (mut braces, mut others) = (0i32, 0i32);
    for token in tokens {
        match token.text.as_str() {
            "(" | "[" => others += 1,
            ")" | "]" => others -= 1,
            "{" => braces += 1,
            "}" => braces -= 1,
            _ => {}
        }
        if braces == 0 && others == 0 && matches!(token.text.as_str(), "}" | ";") {
            return token.line;
        }
    }
    tokens.last().map_or(1, |token| token.line)
}
