//! What one process remembers of registries, so that referrers cost few requests: which registries have the API, and which tags
//! made of digests a repository has. Both are facts that others change, so both are forgotten after a while.
//!
//! It also holds those apart who change the list of referrers of one subject at the same time: a registry that keeps no list
//! itself takes whole lists only, and whoever writes last wins.

use crate::clock::{BootTime, Clock};
use crate::oci::{Digest, Repository};
use crate::registry::Session;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// How long it is remembered whether a registry has the API: registries are upgraded while this program runs.
const API_LIFE: Duration = Duration::from_secs(3600);
/// How long a list of tags is used. A signature that is pushed within that time after another copy from the same repository is
/// found by the next copy only.
const TAGS_LIFE: Duration = Duration::from_secs(30);
/// Most pages of tags that are read, of a thousand tags each at many registries. Beyond it, asking for the few names of each
/// image is cheaper.
const TAG_PAGES: usize = 10;
/// Most repositories or registries remembered; all are forgotten beyond it, which costs a request each.
const PLACES_LIMIT: usize = 1_000;
/// Most manifests of layouts whose subject is remembered, some 5 MB; all are forgotten beyond it, and read again.
const SUBJECTS_LIMIT: usize = 20_000;

/// The tags of a repository that are made of a digest (`sha256-HEX`, with or without an ending).
#[derive(Debug, Clone)]
pub(super) enum Tags {
    /// All there are.
    Listed(Arc<BTreeSet<String>>),
    /// The registry lists none, or too many: each has to be asked for.
    Unlisted,
}

impl Tags {
    /// How long it may be believed. That there is no list says nothing about any tag.
    fn life(&self) -> Duration {
        match self {
            Self::Listed(_) => TAGS_LIFE,
            Self::Unlisted => API_LIFE,
        }
    }
}

/// Shared by all clones.
#[derive(Debug, Clone, Default)]
pub(in crate::replicate) struct Memory(Arc<Shared>);

type TagsOfOne = Arc<Turn<Option<(BootTime, Tags)>>>;

#[derive(Debug, Default)]
struct Shared {
    clock: Clock,
    apis: Mutex<HashMap<String, (bool, BootTime)>>,
    tags: Mutex<HashMap<Repository, TagsOfOne>>,
    /// By the digest of a manifest, which never changes what it says.
    subjects: Mutex<HashMap<Digest, Option<Digest>>>,
    lists: Mutex<HashMap<String, Weak<Turn<()>>>>,
}

impl Memory {
    /// Whether the registry has the API; None: not known, or not any more.
    pub fn has_api(&self, host: &str) -> Option<bool> {
        let (has, seen) = locked(&self.0.apis).get(host).copied()?;
        (self.0.clock.boot().since(seen) < API_LIFE).then_some(has)
    }

    /// The registry was seen to have the API, or not to.
    pub fn saw_api(&self, host: &str, has: bool) {
        let mut apis = locked(&self.0.apis);
        if apis.len() >= PLACES_LIMIT {
            apis.clear();
        }
        apis.insert(host.to_owned(), (has, self.0.clock.boot()));
    }

    /// The tags of a repository that are made of digests: by one list for all who ask within a while. That it cannot be listed
    /// is no error, because each name can be asked for.
    pub(super) async fn tags(&self, session: &Session, repository: &Repository) -> Tags {
        let of_one = {
            let mut tags = locked(&self.0.tags);
            if tags.len() >= PLACES_LIMIT && !tags.contains_key(repository) {
                tags.clear();
            }
            tags.entry(repository.clone()).or_default().clone()
        };
        // Locked while one asks, so that others take its answer.
        let mut known = of_one.lock().await;
        let now = self.0.clock.boot();
        match &*known {
            Some((seen, tags)) if now.since(*seen) < tags.life() => tags.clone(),
            _ => known.insert((now, list(session, repository).await)).1.clone(),
        }
    }

    /// The subject of a manifest that was read before; the outer None: it was not.
    pub fn subject(&self, digest: &Digest) -> Option<Option<Digest>> {
        locked(&self.0.subjects).get(digest).cloned()
    }

    /// What a manifest says of its subject.
    pub fn saw_subject(&self, digest: &Digest, subject: Option<Digest>) {
        let mut subjects = locked(&self.0.subjects);
        if subjects.len() >= SUBJECTS_LIMIT {
            subjects.clear();
        }
        subjects.insert(digest.clone(), subject);
    }

    /// Waits until nobody else here changes the list of that name; nobody will while the guard lives.
    pub async fn turn(&self, list: String) -> OwnedMutexGuard<()> {
        let turn = {
            let mut lists = locked(&self.0.lists);
            if lists.len() >= PLACES_LIMIT {
                lists.retain(|_, turn| turn.strong_count() > 0);
            }
            if let Some(turn) = lists.get(&list).and_then(Weak::upgrade) {
                turn
            } else {
                let turn = Arc::new(Turn::new(()));
                lists.insert(list, Arc::downgrade(&turn));
                turn
            }
        };
        turn.lock_owned().await
    }
}

async fn list(session: &Session, repository: &Repository) -> Tags {
    let (mut found, mut page) = (BTreeSet::new(), None);
    for _ in 0..TAG_PAGES {
        let (tags, next) = match session.list_tags(repository, page.take()).await {
            Ok(listed) => listed,
            // Distribution forgets repositories that have no tag.
            Err(error) if error.status() == Some(404) => return Tags::Listed(Arc::default()),
            Err(error) => {
                tracing::debug!(%repository, %error, "tags are not listed, asking for each");
                return Tags::Unlisted;
            }
        };
        found.extend(tags.into_iter().filter(|tag| tag.starts_with("sha256-") || tag.starts_with("sha512-")));
        match next {
            None => return Tags::Listed(Arc::new(found)),
            next => page = next,
        }
    }
    tracing::debug!(%repository, "too many tags to list them, asking for each");
    Tags::Unlisted
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::oci::Algorithm;
    use futures_util::FutureExt;

    #[test]
    fn what_a_registry_has_is_remembered_for_a_while() {
        let (clock, hand) = Clock::manual(UnixMillis(0));
        let memory = Memory(Arc::new(Shared { clock, ..Shared::default() }));
        assert_eq!(memory.has_api("a.example"), None);
        memory.saw_api("a.example", false);
        hand.advance(API_LIFE - Duration::from_secs(1));
        assert_eq!((memory.has_api("a.example"), memory.has_api("b.example")), (Some(false), None));
        hand.advance(Duration::from_secs(1));
        assert_eq!(memory.has_api("a.example"), None);
        for number in 0..=PLACES_LIMIT {
            memory.saw_api(&number.to_string(), true);
        }
        assert!(locked(&memory.0.apis).len() <= PLACES_LIMIT);
    }

    #[test]
    fn a_subject_is_remembered_also_when_there_is_none() {
        let memory = Memory::default();
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        memory.saw_subject(&digest("a"), None);
        memory.saw_subject(&digest("b"), Some(digest("a")));
        assert_eq!(memory.subject(&digest("a")), Some(None));
        assert_eq!(memory.subject(&digest("b")), Some(Some(digest("a"))));
        assert_eq!(memory.subject(&digest("c")), None);
    }

    #[test]
    fn one_at_a_time_changes_a_list() {
        let memory = Memory::default();
        let first = memory.turn("a".to_owned()).now_or_never().expect("nobody has it");
        assert!(memory.turn("a".to_owned()).now_or_never().is_none());
        assert!(memory.turn("b".to_owned()).now_or_never().is_some());
        drop(first);
        assert!(memory.turn("a".to_owned()).now_or_never().is_some());
    }
}
