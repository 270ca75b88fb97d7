//! `index.json` as a document to be changed in one place: everything else of it is kept as the bytes it came as.
//!
//! Fields and entries are held as raw JSON text in their order; an entry is only looked into for what we need to know.

use super::Entry;
use crate::oci::descriptor::BoundedList;
use crate::oci::{Digest, quote};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// Largest index.json, bytes: some 30,000 entries, far more than layouts in use have.
pub(super) const INDEX_LIMIT_BYTES: u64 = 8 * 1024 * 1024;

/// Most entries in it; a small file could otherwise cost much memory.
const ENTRIES_LIMIT: usize = 100_000;

/// Most fields beside the entries; the specification knows six.
const FIELDS_LIMIT: usize = 1_000;

/// How many entries an error lists.
const LISTED_ENTRIES: usize = 10;

/// The field that holds the entries.
const MANIFESTS: &str = "manifests";

/// The annotation that names an entry (image spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An index.json that was read.
#[derive(Debug)]
pub(super) struct Index {
    /// All fields but the entries, in order.
    fields: Vec<(String, Box<RawValue>)>,
    /// How many of them stand before the entries.
    fields_before: usize,
    entries: Vec<Item>,
}

/// One entry, and what could be read of it.
#[derive(Debug)]
struct Item {
    raw: Box<RawValue>,
    name: Option<String>,
    digest: Option<String>,
}

/// What is looked at in an entry.
#[derive(serde::Deserialize)]
struct Peek {
    digest: Option<String>,
    annotations: Option<BTreeMap<String, serde_json::Value>>,
}

/// What an entry must have when it is used.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
}

/// An entry that we write.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct NewEntry<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<&'static str, &'a str>>,
}

impl Index {
    /// Reads the document; an error says what is wrong with it.
    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        if content.is_empty() {
            return Err("it is empty".to_owned());
        }
        let document: Document = serde_json::from_slice(content).map_err(|cause| shorten(&cause))?;
        let entries = document.manifests.into_iter().map(Item::new).collect();
        Ok(Self { fields: document.fields, fields_before: document.fields_before, entries })
    }

    /// All entries as they are listed, or what is wrong with the first bad one.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, String> {
        self.entries.iter().map(Item::check).collect()
    }

    /// The entries that can be read.
    pub(super) fn readable(&self) -> Vec<Entry> {
        self.entries.iter().filter_map(|item| item.check().ok()).collect()
    }

    /// All entries of that name, or what is wrong with the first bad one among them.
    pub(super) fn all_by_name(&self, name: &str) -> Result<Vec<Entry>, String> {
        self.entries.iter().filter(|item| item.name.as_deref() == Some(name)).map(Item::check).collect()
    }

    /// The first entry of that name, as skopeo has it.
    pub(super) fn by_name(&self, name: &str) -> Result<Option<Entry>, String> {
        self.entries.iter().find(|item| item.name.as_deref() == Some(name)).map(Item::check).transpose()
    }

    /// The first entry with that digest; one of that name is preferred.
    pub(super) fn by_digest(&self, digest: &Digest, name: Option<&str>) -> Result<Option<Entry>, String> {
        let same = || self.entries.iter().filter(|item| item.digest.as_deref() == Some(digest.as_str()));
        let named = same().find(|item| name.is_some() && item.name.as_deref() == name);
        named.or_else(|| same().next()).map(Item::check).transpose()
    }

    /// The only entry; when there are several, a message that lists them. What is named as the referrers of another entry are
    /// is not meant by who names nothing, unless there is nothing else.
    pub(super) fn only(&self) -> Result<Option<Entry>, String> {
        if self.entries.len() < 2 {
            return self.entries.first().map(Item::check).transpose();
        }
        let is_image = |item: &&Item| !item.name.as_deref().is_some_and(is_referrers_name);
        if let [image] = self.entries.iter().filter(is_image).collect::<Vec<_>>()[..] {
            return image.check().map(Some);
        }
        let mut listed: Vec<String> = self.entries.iter().take(LISTED_ENTRIES).map(Item::shown).collect();
        if self.entries.len() > LISTED_ENTRIES {
            listed.push(format!("{} more", self.entries.len() - LISTED_ENTRIES));
        }
        Err(format!(
            "no image is named, and there are several ({}); write oci:DIR:NAME or oci:DIR@DIGEST for one",
            listed.join(", ")
        ))
    }

    /// The document with `entry` in it; None when it says that already. A named entry replaces those of its name; an
    /// unnamed one is added unless its digest is listed.
    pub(super) fn with_entry(&self, entry: &Entry) -> Option<Vec<u8>> {
        let same_name = |item: &Item| item.name.is_some() && item.name == entry.name;
        let present = if entry.name.is_some() {
            let mut named = self.entries.iter().filter(|item| same_name(item));
            let first = named.next().and_then(|item| item.check().ok());
            first.as_ref() == Some(entry) && named.next().is_none()
        } else {
            self.entries.iter().any(|item| item.digest.as_deref() == Some(entry.digest.as_str()))
        };
        if present {
            return None;
        }
        let new = new_entry(entry)?;
        let mut entries: Vec<&str> = Vec::with_capacity(self.entries.len() + 1);
        let mut placed = false;
        for item in &self.entries {
            if !same_name(item) {
                entries.push(item.raw.get());
            } else if !placed {
                entries.push(&new);
                placed = true;
            }
        }
        if !placed {
            entries.push(&new);
        }
        let mut fields: Vec<String> = self.fields.iter().map(|(key, value)| field(key, value.get())).collect();
        fields.insert(self.fields_before.min(fields.len()), field(MANIFESTS, &format!("[{}]", entries.join(","))));
        Some(format!("{{{}}}", fields.join(",")).into_bytes())
    }
}

impl Item {
    fn new(raw: Box<RawValue>) -> Self {
        // An entry that cannot be read stays as it is and has no name: `check` says what is wrong with it when it matters.
        let peek: Option<Peek> = serde_json::from_str(raw.get()).ok();
        let (digest, annotations) = peek.map_or((None, None), |peek| (peek.digest, peek.annotations));
        let name = annotations.as_ref().and_then(|annotations| annotations.get(REF_NAME));
        let name = name.and_then(serde_json::Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
        Self { raw, name, digest }
    }

    fn check(&self) -> Result<Entry, String> {
        let wire: WireEntry = serde_json::from_str(self.raw.get()).map_err(|cause| {
            format!("the entry {} of index.json is no descriptor: {}", self.shown(), shorten(&cause))
        })?;
        let WireEntry { media_type, digest, size } = wire;
        Ok(Entry { digest, size, media_type, name: self.name.clone() })
    }

    fn shown(&self) -> String {
        let text = self.name.as_deref().or(self.digest.as_deref());
        text.map_or_else(|| "without name and digest".to_owned(), quote)
    }
}

/// Whether a name is made of a digest: `sha256-HEX` for the list of its referrers, and with an ending for cosign's.
fn is_referrers_name(name: &str) -> bool {
    let rest = name.strip_prefix("sha256-").or_else(|| name.strip_prefix("sha512-"));
    rest.and_then(|rest| rest.get(..64)).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The JSON text of a new entry. These fields cannot fail to become JSON.
fn new_entry(entry: &Entry) -> Option<String> {
    let annotations = entry.name.as_deref().map(|name| BTreeMap::from([(REF_NAME, name)]));
    let new = NewEntry { media_type: &entry.media_type, digest: &entry.digest, size: entry.size, annotations };
    serde_json::to_string(&new).ok()
}

fn field(key: &str, value: &str) -> String {
    format!("{}:{value}", serde_json::Value::from(key))
}

/// The parser's words, without the text of the document that they may quote at length.
fn shorten(cause: &serde_json::Error) -> String {
    quote(&cause.to_string())
}

/// The whole document, as far as it is taken apart.
struct Document {
    fields: Vec<(String, Box<RawValue>)>,
    fields_before: usize,
    manifests: Vec<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an image index")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let (mut fields, mut manifests) = (Vec::new(), None);
                let mut fields_before = usize::MAX;
                while let Some(key) = map.next_key::<String>()? {
                    if key != MANIFESTS {
                        if fields.len() == FIELDS_LIMIT {
                            return Err(serde::de::Error::custom(format!("it has more than {FIELDS_LIMIT} fields")));
                        }
                        fields.push((key, map.next_value()?));
                        continue;
                    }
                    // Go writes an empty list as null.
                    let list: Option<BoundedList<Box<RawValue>, ENTRIES_LIMIT>> = map.next_value()?;
                    if manifests.replace(list.map(|list| list.0).unwrap_or_default()).is_some() {
                        return Err(serde::de::Error::custom("it has 'manifests' twice"));
                    }
                    fields_before = fields.len();
                }
                Ok(Document { fields, fields_before, manifests: manifests.unwrap_or_default() })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use proptest::prelude::*;

    fn entry(content: &str, name: Option<&str>) -> Entry {
        Entry {
            digest: Digest::of(Algorithm::Sha256, content.as_bytes()),
            size: 7,
            media_type: "a/b".to_owned(),
            name: name.map(str::to_owned),
        }
    }

    fn with(document: &str, entry: &Entry) -> Option<String> {
        let changed = Index::parse(document.as_bytes()).unwrap().with_entry(entry);
        changed.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn everything_else_is_kept_byte_for_byte() {
        let strange = r#"{ "digest":"md5:0", "size": 1.50, "x":{"b":1,"a":[1e99 ,2]}}"#;
        let document = format!(
            r#" {{"z": 123456789012345678901234567890, "schemaVersion":2, "manifests":[ {strange} , 5 ] , "annotations":{{"q":"\u00e9"}} }} "#
        );
        let new = entry("new", Some("v1"));
        let changed = with(&document, &new).unwrap();
        let digest = &new.digest;
        let expected = format!(
            r#"{{"z":123456789012345678901234567890,"schemaVersion":2,"manifests":[{strange},5,{{"mediaType":"a/b","digest":"{digest}","size":7,"annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}],"annotations":{{"q":"\u00e9"}}}}"#
        );
        assert_eq!(changed, expected);
        assert_eq!(with(&changed, &new), None);
        assert_eq!(Index::parse(changed.as_bytes()).unwrap().by_name("v1"), Ok(Some(new)));
        assert!(Index::parse(changed.as_bytes()).unwrap().entries().is_err());
    }

    #[test]
    fn an_entry_that_cannot_be_read_concerns_its_own_name_only() {
        let strange = r#"{"mediaType":"a/b","digest":"blake3:00","size":1,"annotations":{"org.opencontainers.image.ref.name":"odd"}}"#;
        let document = with(&format!(r#"{{"manifests":[{strange}]}}"#), &entry("a", Some("x"))).unwrap();
        assert!(document.contains(strange), "{document}");
        let index = Index::parse(document.as_bytes()).unwrap();
        assert_eq!(index.readable(), [entry("a", Some("x"))]);
        assert_eq!(index.all_by_name("x").unwrap(), [entry("a", Some("x"))]);
        assert_eq!(index.all_by_name("y").unwrap(), []);
        assert!(index.all_by_name("odd").is_err());
    }

    #[test]
    fn a_name_moves_and_takes_its_place() {
        let one = with(r#"{"schemaVersion":2}"#, &entry("a", Some("x"))).unwrap();
        let two = with(&one, &entry("b", Some("y"))).unwrap();
        let moved = with(&two, &entry("c", Some("x"))).unwrap();
        let entries = Index::parse(moved.as_bytes()).unwrap().entries().unwrap();
        assert_eq!(entries, [entry("c", Some("x")), entry("b", Some("y"))]);

        // Two tags of one image are two entries.
        let both = with(&moved, &entry("c", Some("z"))).unwrap();
        let index = Index::parse(both.as_bytes()).unwrap();
        assert_eq!(index.entries().unwrap().len(), 3);
        assert_eq!(index.by_digest(&entry("c", None).digest, Some("z")).unwrap(), Some(entry("c", Some("z"))));
        assert_eq!(index.by_digest(&entry("c", None).digest, Some("q")).unwrap(), Some(entry("c", Some("x"))));
        assert_eq!(index.by_digest(&entry("d", None).digest, None), Ok(None));
    }

    #[test]
    fn doubled_names_become_one() {
        let item = |content: &str| new_entry(&entry(content, Some("x"))).unwrap();
        let document = format!(r#"{{"manifests":[{},{}]}}"#, item("a"), item("b"));
        let index = Index::parse(document.as_bytes()).unwrap();
        assert_eq!(index.by_name("x"), Ok(Some(entry("a", Some("x")))));
        let changed = with(&document, &entry("a", Some("x"))).unwrap();
        assert_eq!(Index::parse(changed.as_bytes()).unwrap().entries().unwrap(), [entry("a", Some("x"))]);
    }

    #[test]
    fn an_unnamed_entry_is_added_once() {
        let one = with(r#"{"manifests":null}"#, &entry("a", None)).unwrap();
        assert_eq!(with(&one, &entry("a", None)), None);
        let two = with(&one, &entry("b", None)).unwrap();
        assert_eq!(Index::parse(two.as_bytes()).unwrap().entries().unwrap().len(), 2);
        let named = with(r#"{}"#, &entry("a", Some("x"))).unwrap();
        assert_eq!(with(&named, &entry("a", None)), None);
    }

    #[test]
    fn the_only_entry_needs_no_name() {
        assert_eq!(Index::parse(b"{}").unwrap().only(), Ok(None));
        let one = with("{}", &entry("a", Some("x"))).unwrap();
        assert_eq!(Index::parse(one.as_bytes()).unwrap().only(), Ok(Some(entry("a", Some("x")))));
        let two = with(&one, &entry("b", None)).unwrap();
        let message = Index::parse(two.as_bytes()).unwrap().only().unwrap_err();
        assert!(message.contains("'x', 'sha256:") && message.contains("oci:DIR:NAME"), "{message}");
        let hex = "0".repeat(64);
        let signed = ["", ".sig"].iter().fold(one.clone(), |document, ending| {
            with(&document, &entry("s", Some(&format!("sha256-{hex}{ending}")))).unwrap()
        });
        assert_eq!(
            Index::parse(signed.as_bytes()).unwrap().only(),
            Ok(Some(entry("a", Some("x")))),
            "and its signature"
        );
        let many = (0..30).fold("{}".to_owned(), |document, number| {
            with(&document, &entry(&number.to_string(), Some(&format!("tag{number}")))).unwrap()
        });
        let message = Index::parse(many.as_bytes()).unwrap().only().unwrap_err();
        assert!(message.contains("'tag9', 20 more"), "{message}");
    }

    #[test]
    fn damaged_documents_are_refused() {
        for (document, part) in [
            ("", "empty"),
            ("[]", "an image index"),
            (r#"{"manifests":[}"#, "expected value"),
            (r#"{"manifests":{}}"#, "a list"),
            (r#"{"manifests":[],"manifests":[]}"#, "twice"),
            ("{", "EOF"),
        ] {
            let why = Index::parse(document.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{document}: {why}");
        }
    }

    proptest! {
        #[test]
        fn publishing_is_idempotent_and_the_last_one_wins(steps in proptest::collection::vec((0_u8..4, 0_u8..4), 1..20)) {
            let mut document = r#"{"schemaVersion":2,"manifests":[]}"#.to_owned();
            let mut expected = BTreeMap::new();
            for (content, name) in steps {
                let entry = entry(&content.to_string(), Some(&format!("n{name}")));
                expected.insert(name, entry.clone());
                if let Some(changed) = with(&document, &entry) {
                    document = changed;
                }
                prop_assert_eq!(with(&document, &entry), None);
            }
            let mut entries = Index::parse(document.as_bytes()).unwrap().entries().unwrap();
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            prop_assert_eq!(entries, expected.into_values().collect::<Vec<_>>());
        }
    }
}
