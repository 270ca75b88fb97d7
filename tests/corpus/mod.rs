//! What the parsers are held to: inputs that registries and people really write, inputs that would hurt, and mutations of
//! both.
//!
//! A corpus is a file of lines (`NAME.txt`, `#` begins a comment) or a folder of documents (`NAME/`). Whatever a parser once
//! got wrong is added here.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::path::{Path, PathBuf};

/// Most edits of one entry.
const EDITS: usize = 6;
/// Most bytes that one edit takes out or puts in.
const EDIT_BYTES: usize = 24;
/// Most times that one edit repeats a part.
const REPEATS: usize = 40;

/// One change of an entry.
#[derive(Debug, Clone)]
enum Edit {
    /// So many bytes give place to others: bytes of any value, or some that mean something to a parser.
    Replace { at: Index, taken: usize, put: Vec<u8> },
    /// A part comes again and again.
    Repeat { at: Index, bytes: usize, times: usize },
    /// The rest is that of another entry.
    Splice { at: Index, other: Vec<u8>, from: Index },
}

impl Edit {
    fn apply(self, entry: &mut Vec<u8>) {
        match self {
            Self::Replace { at, taken, put } => {
                let at = place(at, entry);
                let end = entry.len().min(at + taken);
                entry.splice(at..end, put);
            }
            Self::Repeat { at, bytes, times } => {
                let at = place(at, entry);
                let part = entry[at..entry.len().min(at + bytes)].repeat(times);
                entry.splice(at..at, part);
            }
            Self::Splice { at, other, from } => {
                entry.truncate(place(at, entry));
                entry.extend_from_slice(&other[place(from, &other)..]);
            }
        }
    }
}

/// A place in `entry`, its end included.
fn place(index: Index, entry: &[u8]) -> usize {
    index.index(entry.len() + 1)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The entries of the corpus `name`, each a line.
pub fn lines(name: &str) -> Vec<String> {
    let path = folder().join(name).with_extension("txt");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<String> = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{} has no entries", path.display());
    lines
}

/// The entries of the corpus `name`, each a file: its name and its bytes.
pub fn documents(name: &str) -> Vec<(String, Vec<u8>)> {
    let path = folder().join(name);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    };
    let mut documents: Vec<_> = entries.map(|entry| read(entry.unwrap().path())).collect();
    documents.sort();
    assert!(!documents.is_empty(), "{} has no entries", path.display());
    documents
}

/// Entries as they are, and up to six edits away from it.
fn mutated(entries: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let special: Vec<Vec<u8>> = [
        "\"",
        "\\",
        ",",
        ";",
        "=",
        "<",
        ">",
        ":",
        "/",
        "//",
        "..",
        "@",
        "%2f",
        "%00",
        "\0",
        "\r\n",
        "\t",
        " ",
        "-",
        "*",
        "{",
        "}",
        "[",
        "]",
        "null",
        "-1",
        "0",
        "1e309",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775808",
        "é",
        "\u{202e}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    let put = prop_oneof![select(special), prop::collection::vec(any::<u8>(), 0..EDIT_BYTES)];
    let edit = prop_oneof![
        4 => (any::<Index>(), 0..EDIT_BYTES, put).prop_map(|(at, taken, put)| Edit::Replace { at, taken, put }),
        1 => (any::<Index>(), 1..EDIT_BYTES, 1..REPEATS)
            .prop_map(|(at, bytes, times)| Edit::Repeat { at, bytes, times }),
        1 => (any::<Index>(), select(entries.clone()), any::<Index>())
            .prop_map(|(at, other, from)| Edit::Splice { at, other, from }),
    ];
    (select(entries), prop::collection::vec(edit, 0..=EDITS)).prop_map(|(mut entry, edits)| {
        edits.into_iter().for_each(|edit| edit.apply(&mut entry));
        entry
    })
}

/// As [`mutated`], for a corpus of lines; what is no UTF-8 after it becomes U+FFFD.
pub fn mutated_lines(name: &str) -> impl Strategy<Value = String> {
    let entries = lines(name).into_iter().map(String::into_bytes).collect();
    mutated(entries).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// As [`mutated`], for a corpus of documents.
pub fn mutated_documents(name: &str) -> impl Strategy<Value = Vec<u8>> {
    mutated(documents(name).into_iter().map(|(_, bytes)| bytes).collect())
}
