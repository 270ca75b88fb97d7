use super::*;
use crate::oci::{Algorithm, Descriptor};
use bytes::Bytes;
use proptest::prelude::*;

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn manifest(name: &str, children: &[Digest]) -> Manifest {
    let descriptor = |digest: &Digest| Descriptor {
        media_type: String::new(),
        digest: digest.clone(),
        size: 1,
        urls: Vec::new(),
        platform: None,
        artifact_type: None,
    };
    let content = if children.is_empty() {
        Content::Image { blobs: Vec::new(), config: None, subject: None }
    } else {
        Content::Index { manifests: children.iter().map(descriptor).collect(), subject: None }
    };
    Manifest { bytes: Bytes::new(), digest: digest(name), media_type: String::new(), content }
}

/// Random trees: manifest number n lists some of the manifests before it, and perhaps an entry that became a blob.
fn trees() -> impl Strategy<Value = Vec<Vec<prop::sample::Index>>> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 0..40)
}

fn tree(shape: &[Vec<prop::sample::Index>], sizes: &[u64]) -> Tree {
    let mut children: Vec<Manifest> = Vec::new();
    for (number, listed) in shape.iter().enumerate() {
        let mut names: Vec<Digest> = Vec::new();
        for index in listed {
            let chosen = index.index(number + 1);
            names.push(children.get(chosen).map_or_else(|| digest("a blob after all"), |child| child.digest.clone()));
        }
        children.push(manifest(&number.to_string(), &names));
    }
    let all: Vec<_> = children.iter().map(|child| child.digest.clone()).collect();
    // As they are read: in no useful order.
    children.sort_by(|one, other| one.digest.cmp(&other.digest));
    let blobs =
        sizes.iter().enumerate().map(|(number, size)| Blob { digest: digest(&format!("blob {number}")), size: *size });
    Tree { root: manifest("root", &all), children, blobs: blobs.collect() }
}

proptest! {
    #[test]
    fn children_come_before_their_parents_and_each_comes_once(shape in trees()) {
        let plan = plan(tree(&shape, &[]), &Inventory::default());
        let known: BTreeSet<_> = (0..shape.len()).map(|number| digest(&number.to_string())).collect();
        let mut put = BTreeSet::new();
        for wave in &plan.waves {
            prop_assert!(!wave.is_empty());
            for manifest in wave {
                if let Content::Index { manifests, .. } = &manifest.content {
                    for child in manifests.iter().filter(|child| known.contains(&child.digest)) {
                        prop_assert!(put.contains(&child.digest), "a parent in the same wave as its child, or before it");
                    }
                }
            }
            for manifest in wave {
                prop_assert!(put.insert(manifest.digest.clone()), "a manifest in two waves");
            }
        }
        prop_assert_eq!(&put, &known);
        prop_assert!(!put.contains(&plan.root.digest), "the root is published, not transferred");
        prop_assert_eq!(plan.manifests(), u64::try_from(shape.len()).unwrap() + 1);
    }

    #[test]
    fn each_blob_is_either_there_or_brought_the_largest_first(sizes in prop::collection::vec(any::<u64>(), 0..30), there in any::<u32>()) {
        let tree = tree(&[], &sizes);
        let present: BTreeSet<_> = tree
            .blobs
            .iter()
            .enumerate()
            .filter(|(number, _)| there >> (number % 32) & 1 == 1)
            .map(|(_, blob)| blob.digest.clone())
            .collect();
        let all: BTreeSet<_> = tree.blobs.iter().map(|blob| blob.digest.clone()).collect();
        let plan = plan(tree, &Inventory { present: present.clone() });
        prop_assert!(plan.missing.is_sorted_by(|one, other| one.size >= other.size));
        prop_assert_eq!(plan.present.iter().map(|blob| blob.digest.clone()).collect::<BTreeSet<_>>(), present.clone());
        let missing: BTreeSet<_> = plan.missing.iter().map(|blob| blob.digest.clone()).collect();
        prop_assert!(missing.is_disjoint(&present));
        prop_assert_eq!(missing.len() + present.len(), all.len());
        prop_assert_eq!(plan.bytes(), sizes.iter().fold(0_u64, |total, size| total.saturating_add(*size)));
    }
}

fn at(names: &[&str], named: bool) -> Current {
    Current { digests: names.iter().map(|name| digest(name)).collect(), named }
}

fn verdict(demanded: Option<&str>, current: &Current, force: bool, no_clobber: bool) -> Result<Verdict, Error> {
    let options = CopyOptions { force, no_clobber, ..CopyOptions::default() };
    judge(&digest("new"), demanded.map(digest).as_ref(), current, &options, "example.com/app:1")
}

#[test]
fn what_is_there_is_not_copied_again_unless_it_is_forced() {
    for no_clobber in [false, true] {
        assert_eq!(verdict(None, &at(&["new"], true), false, no_clobber).unwrap(), Verdict::AlreadyPresent);
        assert_eq!(verdict(None, &at(&["new"], true), true, no_clobber).unwrap(), Verdict::Copy);
        assert_eq!(verdict(None, &at(&[], true), false, no_clobber).unwrap(), Verdict::Copy);
    }
    assert_eq!(verdict(None, &at(&["old", "new"], false), false, false).unwrap(), Verdict::AlreadyPresent);
}

#[test]
fn another_digest_is_replaced_unless_that_is_forbidden() {
    assert_eq!(verdict(None, &at(&["old"], true), false, false).unwrap(), Verdict::Copy);
    for force in [false, true] {
        let error = verdict(None, &at(&["old"], true), force, true).unwrap_err();
        assert_eq!((error.stage, error.class), (Stage::Survey, Class::Refused));
        for part in ["example.com/app:1", digest("old").as_str(), digest("new").as_str(), "--no-clobber"] {
            assert!(error.message.contains(part), "{error}");
        }
    }
    assert_eq!(verdict(None, &at(&["old"], false), false, true).unwrap(), Verdict::Copy, "nothing is replaced");
}

#[test]
fn a_demanded_digest_must_be_the_sources() {
    assert_eq!(verdict(Some("new"), &at(&[], true), false, false).unwrap(), Verdict::Copy);
    let error = verdict(Some("other"), &at(&[], true), true, false).unwrap_err();
    assert!(error.class == Class::Refused && error.message.contains(digest("other").as_str()), "{error}");
}
