//! A file of settings as a tree in which every value knows its line and column: TOML and YAML alike.
//!
//! serde stops at the first mistake and forgets where values stood; whoever writes rules by hand wants to be told of all
//! mistakes at once, with their places. So a tree is read here, and [`Section`] walks it and collects what is wrong.

use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use toml::de::{DeTable, DeValue};

/// Most values of a document, with what aliases repeat.
const NODES_LIMIT: usize = 500_000;
/// Deepest nesting.
const DEPTH_LIMIT: usize = 64;

/// Where something stands, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// One line.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}, column {}: {}", self.place.line, self.place.column, self.message)
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a value is. Numbers and truths are kept as they are written: a tag may look like a number.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Text that is not quoted: a number, a truth, or a word.
    Plain(String),
    /// Quoted text.
    Quoted(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and their values, as they stand there.
    Map(Vec<(String, Place, Node)>),
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Plain(_) | Self::Quoted(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }
}

/// Reads TOML.
///
/// # Errors
/// It is none.
pub fn toml(text: &str) -> Result<Node, Problem> {
    let lines: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let place = |at: usize| {
        let line = lines.partition_point(|start| *start <= at).max(1);
        let start = lines[line - 1];
        let column = text.get(start..at).map_or(0, |before| before.chars().count()) + 1;
        Place { line, column }
    };
    let table = DeTable::parse(text).map_err(|error| Problem {
        place: place(error.span().map_or(0, |span| span.start.min(text.len()))),
        message: error.message().replace('\n', " "),
    })?;
    Ok(Node { place: place(0), value: table_of(table.get_ref(), &place) })
}

fn table_of(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let node = Node { place: place(value.span().start), value: value_of(value.get_ref(), place) };
            (key.get_ref().to_string(), place(key.span().start), node)
        })
        .collect();
    entries.sort_by_key(|(_, place, _)| *place);
    Value::Map(entries)
}

fn value_of(value: &DeValue<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Quoted(text.to_string()),
        DeValue::Integer(number) => Value::Plain(number.to_string()),
        DeValue::Float(number) => Value::Plain(number.to_string()),
        DeValue::Boolean(truth) => Value::Plain(truth.to_string()),
        DeValue::Datetime(time) => Value::Plain(time.to_string()),
        DeValue::Array(list) => {
            let node = |value: &toml::Spanned<DeValue<'_>>| Node {
                place: place(value.span().start),
                value: value_of(value.get_ref(), place),
            };
            Value::List(list.iter().map(node).collect())
        }
        DeValue::Table(table) => table_of(table, place),
    }
}

/// Reads YAML, or JSON: one document. Anchors and aliases are understood.
///
/// # Errors
/// It is none, it is nested too deep, or aliases repeat too much.
pub fn yaml(text: &str) -> Result<Node, Problem> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Problem {
            place: Place { line: error.marker().line(), column: error.marker().col() + 1 },
            message: error.info().to_owned(),
        })?;
        builder.take(event, Place { line: span.start.line(), column: span.start.col() + 1 })?;
    }
    let empty = Node { place: Place { line: 1, column: 1 }, value: Value::Null };
    Ok(builder.root.unwrap_or(empty))
}

/// A list or map that is not closed yet.
struct Open {
    place: Place,
    anchor: usize,
    value: Value,
    /// The key that waits for its value.
    key: Option<(String, Place)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    root: Option<Node>,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Problem> {
        let problem = |message: &str| Err(Problem { place, message: message.to_owned() });
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                problem("there is a second document: put it into a file of its own")
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text if plain => Value::Plain(text.to_owned()),
                    text => Value::Quoted(text.to_owned()),
                };
                self.add(Node { place, value }, anchor, 1)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                // It stands where it is used.
                Some((node, size)) => {
                    let (node, size) = (node.clone(), *size);
                    self.add(node, 0, size)
                }
                None => problem("this alias has no anchor before it"),
            },
            Event::SequenceStart(anchor, _) => self.begin(place, anchor, Value::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(place, anchor, Value::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => {
                    let node = Node { place: open.place, value: open.value };
                    let size = if open.anchor > 0 { size(&node) } else { 1 };
                    self.add(node, open.anchor, size)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, place: Place, anchor: usize, value: Value) -> Result<(), Problem> {
        if self.open.len() >= DEPTH_LIMIT {
            return Err(Problem { place, message: format!("this is nested more than {DEPTH_LIMIT} deep") });
        }
        self.open.push(Open { place, anchor, value, key: None });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Problem> {
        self.nodes += size;
        if self.nodes > NODES_LIMIT {
            return Err(Problem { place: node.place, message: format!("there are more than {NODES_LIMIT} values") });
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.value, open.key.take()) {
            (Value::List(list), _) => list.push(node),
            (Value::Map(entries), Some((key, place))) => {
                match node.value {
                    // Merge keys: what stands there itself wins.
                    Value::Map(merged) if key == "<<" => {
                        for entry in merged {
                            if entries.iter().all(|(known, ..)| *known != entry.0) {
                                entries.push(entry);
                            }
                        }
                    }
                    _ => entries.push((key, place, node)),
                }
            }
            (Value::Map(_), None) => match node.value {
                Value::Plain(text) | Value::Quoted(text) => open.key = Some((text, node.place)),
                other => {
                    return Err(Problem {
                        place: node.place,
                        message: format!("a key must be a word, this is {}", other.kind()),
                    });
                }
            },
            _ => {}
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(list) => list.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(.., node)| size(node)).sum(),
        _ => 0,
    }
}

/// `camelCase` as `snake_case`.
fn snake(key: &str) -> String {
    let mut snake = String::with_capacity(key.len() + 4);
    for character in key.chars() {
        if character.is_ascii_uppercase() {
            if !snake.is_empty() && !snake.ends_with('_') {
                snake.push('_');
            }
            snake.push(character.to_ascii_lowercase());
        } else {
            snake.push(character);
        }
    }
    snake
}

/// A section that is being read. What is wrong is collected; what is not asked for is unknown.
pub struct Section<'a> {
    /// How it is called in messages; empty: the whole file.
    name: String,
    /// Where it stands.
    pub place: Place,
    entries: Vec<(String, Place, &'a Node)>,
    asked: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    /// The section that a node is. `camelCase` keys count as `snake_case`.
    pub fn of(node: &'a Node, name: &str, problems: &mut Vec<Problem>) -> Self {
        let mut section =
            Self { name: name.to_owned(), place: node.place, entries: Vec::new(), asked: BTreeSet::new() };
        match &node.value {
            Value::Map(entries) => {
                for (key, place, node) in entries {
                    let key = snake(key);
                    if section.entries.iter().any(|(known, ..)| *known == key) {
                        problems.push(Problem {
                            place: *place,
                            message: format!("{} stands here twice", section.path(&key)),
                        });
                    } else {
                        section.entries.push((key, *place, node));
                    }
                }
            }
            Value::Null => {}
            other => problems.push(Problem {
                place: node.place,
                message: format!(
                    "{} must be a section with keys, this is {}",
                    if name.is_empty() { "the file" } else { name },
                    other.kind()
                ),
            }),
        }
        section
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The value of a key; None when it is not there, or nothing.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.insert(key);
        let node = self.entries.iter().find(|(known, ..)| known == key)?.2;
        (node.value != Value::Null).then_some(node)
    }

    /// Where a key stands; the section's own place when it does not.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Place {
        self.entries.iter().find(|(known, ..)| known == key).map_or(self.place, |(_, place, _)| *place)
    }

    /// A problem at a key.
    pub fn problem(&self, key: &str, message: impl fmt::Display, problems: &mut Vec<Problem>) {
        let node = self.entries.iter().find(|(known, ..)| known == key);
        let place = node.map_or(self.place, |(_, _, node)| node.place);
        problems.push(Problem { place, message: format!("{}: {message}", self.path(key)) });
    }

    /// Text, however it is written.
    pub fn text(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<String> {
        let node = self.get(key)?;
        match &node.value {
            Value::Plain(text) | Value::Quoted(text) => Some(text.clone()),
            other => {
                self.problem(key, format_args!("it must be text, this is {}", other.kind()), problems);
                None
            }
        }
    }

    /// Text that is read further.
    pub fn read<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let text = self.text(key, problems)?;
        read(&text).map_err(|error| self.problem(key, error, problems)).ok()
    }

    /// A list of texts that are read further, each; a single text is a list of one.
    pub fn list<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<T>> {
        let node = self.get(key)?;
        let nodes = match &node.value {
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut found = Vec::with_capacity(nodes.len());
        for node in nodes {
            let read = match &node.value {
                Value::Plain(text) | Value::Quoted(text) => read(text).map_err(|error| error.to_string()),
                other => Err(format!("each entry must be text, this is {}", other.kind())),
            };
            match read {
                Ok(value) => found.push(value),
                Err(error) => {
                    problems.push(Problem { place: node.place, message: format!("{}: {error}", self.path(key)) })
                }
            }
        }
        Some(found)
    }

    /// A truth.
    pub fn flag(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<bool> {
        let node = self.get(key)?;
        match &node.value {
            Value::Plain(text) if matches!(text.as_str(), "true" | "True" | "TRUE" | "yes" | "on") => Some(true),
            Value::Plain(text) if matches!(text.as_str(), "false" | "False" | "FALSE" | "no" | "off") => Some(false),
            _ => {
                self.problem(key, "it must be true or false", problems);
                None
            }
        }
    }

    /// A whole number within a range.
    pub fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<i64>,
        problems: &mut Vec<Problem>,
    ) -> Option<i64> {
        let node = self.get(key)?;
        let number = match &node.value {
            Value::Plain(text) => text.replace('_', "").parse::<i64>().ok(),
            _ => None,
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let (from, to) = (range.start(), range.end());
                self.problem(key, format_args!("it must be a whole number from {from} to {to}"), problems);
                None
            }
        }
    }

    /// Names what is there and was not asked for.
    pub fn end(self, problems: &mut Vec<Problem>) {
        let known = self.asked.iter().copied().collect::<Vec<_>>().join(", ");
        for (key, place, _) in &self.entries {
            if !self.asked.contains(key.as_str()) {
                let message = format!("{} is unknown: there is {known}", self.path(key));
                problems.push(Problem { place: *place, message });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_languages_give_the_same_tree_with_places() {
        let one = yaml("a: x\nlist:\n  - 1.10\n  - \"2\"\nmap: {b: true}\nnothing: ~\n").unwrap();
        let other = toml("a = \"x\"\nlist = [1.10,\n  \"2\"]\nmap = {b = true}\n").unwrap();
        let Value::Map(entries) = &one.value else { panic!("{one:?}") };
        assert_eq!(entries[1].1, Place { line: 2, column: 1 });
        let Value::List(list) = &entries[1].2.value else { panic!("{one:?}") };
        assert_eq!((&list[0].value, list[0].place), (&Value::Plain("1.10".to_owned()), Place { line: 3, column: 5 }));
        let Value::Map(entries) = &other.value else { panic!("{other:?}") };
        let Value::List(list) = &entries[1].2.value else { panic!("{other:?}") };
        assert_eq!((&list[1].value, list[1].place), (&Value::Quoted("2".to_owned()), Place { line: 3, column: 3 }));
    }

    #[test]
    fn what_is_no_such_file_says_where() {
        assert_eq!(toml("a = 1\nb = = 2\n").unwrap_err().place.line, 2);
        assert!(yaml("a: [1\nb: 2\n").unwrap_err().place.line >= 1);
        assert!(yaml("a: 1\n---\nb: 2\n").unwrap_err().message.contains("second document"));
        assert!(yaml("[a]: 1\n").unwrap_err().message.contains("key must be a word"));
        assert!(yaml(&"[".repeat(100)).is_err());
    }

    #[test]
    fn aliases_repeat_and_cannot_blow_up() {
        let node = yaml("base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\n").unwrap();
        let mut problems = Vec::new();
        let mut section = Section::of(&node, "", &mut problems);
        let mut used = Section::of(section.get("use").unwrap(), "use", &mut problems);
        assert_eq!(used.number("a", 0..=9, &mut problems), Some(1));
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(",")));
        }
        assert!(yaml(&bomb).unwrap_err().message.contains("more than"));
    }

    #[test]
    fn a_section_tells_everything_that_is_wrong() {
        let node =
            yaml("text: [a]\nflag: maybe\nnumber: 12\nlist: [a, [b], c]\nunknown: 1\nlistNames: x\ntext: b\n").unwrap();
        let mut problems = Vec::new();
        let mut section = Section::of(&node, "top", &mut problems);
        assert_eq!(section.text("text", &mut problems), None);
        assert_eq!(section.flag("flag", &mut problems), None);
        assert_eq!(section.number("number", 1..=10, &mut problems), None);
        assert_eq!(section.list("list", |text| Ok::<_, String>(text.to_owned()), &mut problems).unwrap().len(), 2);
        assert_eq!(
            section.list("list_names", |text| Err::<String, _>(format!("{text} is bad")), &mut problems),
            Some(Vec::new())
        );
        section.end(&mut problems);
        problems.sort_by_key(|problem| problem.place);
        assert_eq!(
            told(&problems),
            [
                "line 1, column 7: top.text: it must be text, this is a list",
                "line 2, column 7: top.flag: it must be true or false",
                "line 3, column 9: top.number: it must be a whole number from 1 to 10",
                "line 4, column 11: top.list: each entry must be text, this is a list",
                "line 5, column 1: top.unknown is unknown: there is flag, list, list_names, number, text",
                "line 6, column 12: top.list_names: x is bad",
                "line 7, column 1: top.text stands here twice",
            ]
        );
    }
}
