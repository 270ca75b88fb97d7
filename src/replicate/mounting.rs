//! What was learned of a registry while blobs were brought to it, so that it is not asked in vain again.
//!
//! Memories of different lives. How a registry takes the wish to mount is its habit, and is kept for the life of the
//! process, as is where blobs were brought to: a repository that holds one may give it to the others of its registry. That
//! is only a hint: the POST that begins an upload asks for the mount at no cost, and its answer says whether it was true.
//! Whether a registry's answers to HEAD are worth their requests is a matter of one attempt: the first blob that is not
//! there says that this is no copy whose blobs were there already, and from then on only those ask whose reading at the
//! source costs no redirect, so that a copy stays within its requests either way.

use crate::oci::{Digest, Repository};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Most pairs of repositories that are remembered; all are forgotten beyond it, which costs a request each.
const PAIRS_LIMIT: usize = 10_000;

/// Most blobs whose holders are remembered, some 5 MB; all are forgotten beyond it, and are uploaded once more each.
const HOLDERS_LIMIT: usize = 20_000;

/// How registries take the wish to mount a blob, and from where. Shared by all clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Mounting(Arc<Mutex<Known>>);

/// Host, from, to.
type Pair = (String, String, String);

#[derive(Debug, Default)]
struct Known {
    /// Registries that have answered 201 when asked to mount a blob of a repository into itself: a 202 of theirs means
    /// that the blob is not there.
    from_itself: BTreeSet<String>,
    /// Answered with an error.
    refused: BTreeSet<Pair>,
    /// Answered without one.
    heard: BTreeSet<Pair>,
    /// Neither yet: whose turn it is to find out.
    asking: HashMap<Pair, Arc<Turn<()>>>,
    /// By host, then blob: the first repository that was seen to hold it. One for all blobs of an image, as far as may be,
    /// because each pair of repositories needs a token of its own.
    holders: HashMap<String, HashMap<Digest, Arc<Repository>>>,
    /// What this process brought to repositories or found there, by repository, each with the moment of it.
    held: HashMap<Repository, HashMap<Digest, Moment>>,
    /// The last moment at which anything was brought.
    now: Moment,
}

/// A place in the order in which blobs were brought by this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Mounting {
    /// The registry said that a blob is there when it was asked to mount it from the repository itself.
    pub fn made_from_itself(&self, repository: &Repository) {
        self.with(|known| {
            if !known.from_itself.contains(repository.host()) {
                known.from_itself.insert(repository.host().to_owned());
            }
        });
    }

    /// Whether it ever did.
    pub fn is_made_from_itself(&self, repository: &Repository) -> bool {
        self.with(|known| known.from_itself.contains(repository.host()))
    }

    /// The registry answered the wish to mount with an error.
    pub fn refused(&self, from: &Repository, to: &Repository) {
        self.with(|known| {
            if known.refused.len() >= PAIRS_LIMIT {
                known.refused.clear();
            }
            known.asking.remove(&key(from, to));
            known.refused.insert(key(from, to));
        });
    }

    /// The registry took the wish, whether it mounted or not.
    pub fn heard(&self, from: &Repository, to: &Repository) {
        self.with(|known| {
            if known.heard.len() >= PAIRS_LIMIT {
                known.heard.clear();
            }
            known.asking.remove(&key(from, to));
            known.heard.insert(key(from, to));
        });
    }

    /// The first wish between two repositories goes alone: many at once would all be refused. None when it is known how it was
    /// answered; else the turn of the caller, who says what he hears. Safe to drop while it waits.
    pub async fn first_wish(&self, from: &Repository, to: &Repository) -> Option<OwnedMutexGuard<()>> {
        let pair = key(from, to);
        let known = |known: &Known| known.heard.contains(&pair) || known.refused.contains(&pair);
        let asking = self.with(|all| {
            if all.asking.len() >= PAIRS_LIMIT {
                all.asking.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            (!known(all)).then(|| all.asking.entry(pair.clone()).or_default().clone())
        })?;
        let turn = asking.lock_owned().await;
        self.with(|all| !known(all)).then_some(turn)
    }

    /// Whether it ever did.
    pub fn is_refused(&self, from: &Repository, to: &Repository) -> bool {
        self.with(|known| !known.refused.is_empty() && known.refused.contains(&key(from, to)))
    }

    /// After everything that was brought so far, and before anything that will be.
    pub fn now(&self) -> Moment {
        self.with(|known| known.now)
    }

    /// The registry has told this process just now that the blob is in this repository.
    pub fn brought(&self, repository: &Repository, digest: &Digest) {
        let now = self.with(|known| {
            known.now.0 += 1;
            known.now
        });
        self.note(repository, digest, now);
    }

    /// The registry has told so after that moment, to whichever copy of this process.
    pub fn was_brought_after(&self, moment: Moment, repository: &Repository, digest: &Digest) -> bool {
        let brought = self.with(|known| known.held.get(repository)?.get(digest).copied());
        brought.is_some_and(|brought| brought > moment)
    }

    /// The blob was seen in this repository, whoever saw it.
    pub fn holds(&self, repository: &Repository, digest: &Digest) {
        self.note(repository, digest, Moment::default());
    }

    fn note(&self, repository: &Repository, digest: &Digest, moment: Moment) {
        self.with(|known| {
            if known.holders.values().map(HashMap::len).sum::<usize>() >= HOLDERS_LIMIT {
                known.holders.clear();
            }
            let of_host = known.holders.entry(repository.host().to_owned()).or_default();
            of_host.entry(digest.clone()).or_insert_with(|| Arc::new(repository.clone()));
            if known.held.values().map(HashMap::len).sum::<usize>() >= HOLDERS_LIMIT {
                known.held.clear();
            }
            let held = known.held.entry(repository.clone()).or_default();
            let known = held.entry(digest.clone()).or_default();
            *known = moment.max(*known);
        });
    }

    /// This process has seen the blob in this repository.
    pub fn is_in(&self, repository: &Repository, digest: &Digest) -> bool {
        self.with(|known| known.held.get(repository).is_some_and(|held| held.contains_key(digest)))
    }

    /// The blob is not in this repository, whatever was seen.
    pub fn not_in(&self, repository: &Repository, digest: &Digest) {
        self.with(|known| {
            if let Some(held) = known.held.get_mut(repository) {
                held.remove(digest);
            }
        });
        self.lost(repository, digest);
    }

    /// Another repository of the same registry that held the blob when it was last seen.
    pub fn holder(&self, repository: &Repository, digest: &Digest) -> Option<Arc<Repository>> {
        let holder = self.with(|known| known.holders.get(repository.host())?.get(digest).cloned());
        holder.filter(|holder| **holder != *repository)
    }

    /// The blob is not there any more, or may not be had from there.
    pub fn lost(&self, holder: &Repository, digest: &Digest) {
        self.with(|known| {
            if let Some(of_host) = known.holders.get_mut(holder.host())
                && of_host.get(digest).is_some_and(|known| **known == *holder)
            {
                of_host.remove(digest);
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn key(from: &Repository, to: &Repository) -> Pair {
    (to.host().to_owned(), from.name().to_owned(), to.name().to_owned())
}

/// Whether the destination is still asked for blobs by HEAD, within one attempt.
#[derive(Debug)]
pub(super) struct Asking {
    /// A blob was not there. Locked while one asks, so that others learn from its answer instead of asking too.
    missed: Turn<bool>,
    /// The source gives blobs without a redirect.
    direct: AtomicBool,
}

impl Asking {
    /// For one attempt; `direct` when the source is known to give blobs without a redirect.
    pub fn new(direct: bool) -> Self {
        Self { missed: Turn::new(false), direct: AtomicBool::new(direct) }
    }

    /// Whether the blob is there, by `ask`; false without asking, when that is not worth a request any more.
    pub async fn ask<F: Future<Output = bool>>(&self, ask: impl FnOnce() -> F) -> bool {
        if self.direct.load(Ordering::Relaxed) {
            return ask().await;
        }
        let mut missed = self.missed.lock().await;
        if *missed {
            return false;
        }
        let there = ask().await;
        *missed = !there;
        there
    }

    /// The source gave a blob, after a redirect or without.
    pub fn read(&self, redirected: bool) {
        self.direct.store(!redirected, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn repository(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    #[test]
    fn a_registry_that_mounts_from_itself_is_remembered_by_all() {
        let known = Mounting::default();
        let shared = known.clone();
        shared.made_from_itself(&repository("example.com/a"));
        shared.made_from_itself(&repository("example.com/a"));
        assert!(known.is_made_from_itself(&repository("example.com/b")));
        assert!(!known.is_made_from_itself(&repository("example.org/a")));
    }

    #[test]
    fn a_refusal_is_about_two_repositories() {
        let (a, b, elsewhere) = (repository("example.com/a"), repository("example.com/b"), repository("example.org/b"));
        let known = Mounting::default();
        known.refused(&a, &b);
        assert!(known.is_refused(&a, &b));
        assert!(!known.is_refused(&b, &a) && !known.is_refused(&b, &b) && !known.is_refused(&a, &elsewhere));
        for number in 0..=PAIRS_LIMIT {
            known.refused(&a, &repository(&format!("example.com/n{number}")));
        }
        assert!(known.with(|known| known.refused.len()) <= PAIRS_LIMIT);
    }

    #[tokio::test]
    async fn the_first_wish_of_two_repositories_goes_alone() {
        let (a, b, c) = (repository("example.com/a"), repository("example.com/b"), repository("example.com/c"));
        let known = Mounting::default();
        let first = known.first_wish(&a, &b).await.expect("nobody knows");
        assert!(known.first_wish(&b, &a).await.is_some(), "that is another pair");
        assert!(known.first_wish(&a, &b).now_or_never().is_none(), "it waits");
        drop(first);
        let second = known.first_wish(&a, &b).await.expect("the first one has heard nothing");
        let mut third = std::pin::pin!(known.first_wish(&a, &b));
        assert!(third.as_mut().now_or_never().is_none());
        known.refused(&a, &b);
        drop(second);
        assert!(third.await.is_none() && known.first_wish(&a, &b).await.is_none(), "it is known now");
        known.heard(&c, &b);
        assert!(known.first_wish(&c, &b).await.is_none());
        assert_eq!(known.with(|known| known.asking.len()), 1, "of the pair that nobody has heard of");
    }

    #[test]
    fn the_first_holder_of_a_blob_is_kept_until_it_is_lost() {
        let (a, b, c) = (repository("example.com/a"), repository("example.com/b"), repository("example.com/c"));
        let elsewhere = repository("example.org/b");
        let blob = |text: &str| Digest::of(crate::oci::Algorithm::Sha256, text.as_bytes());
        let known = Mounting::default();
        assert_eq!(known.holder(&b, &blob("x")), None);
        known.holds(&a, &blob("x"));
        known.holds(&b, &blob("x"));
        assert_eq!(known.holder(&b, &blob("x")).as_deref(), Some(&a));
        assert_eq!(known.holder(&a, &blob("x")), None, "it has it itself");
        assert_eq!((known.holder(&elsewhere, &blob("x")), known.holder(&b, &blob("y"))), (None, None));
        known.lost(&b, &blob("x"));
        assert!(known.holder(&b, &blob("x")).is_some(), "that was another one");
        known.lost(&a, &blob("x"));
        assert_eq!(known.holder(&b, &blob("x")), None);
        known.holds(&c, &blob("x"));
        assert_eq!(known.holder(&b, &blob("x")).as_deref(), Some(&c));
        for number in 0..=HOLDERS_LIMIT {
            known.holds(&a, &blob(&number.to_string()));
        }
        assert!(known.with(|known| known.holders.values().map(HashMap::len).sum::<usize>()) <= HOLDERS_LIMIT);
    }

    #[test]
    fn only_what_was_brought_meanwhile_needs_no_question() {
        let (a, b) = (repository("example.com/a"), repository("example.com/b"));
        let blob = |text: &str| Digest::of(crate::oci::Algorithm::Sha256, text.as_bytes());
        let known = Mounting::default();
        known.brought(&a, &blob("before"));
        let start = known.now();
        known.holds(&a, &blob("seen"));
        let brought = |repository, text: &str| known.was_brought_after(start, repository, &blob(text));
        assert!(!brought(&a, "before") && !brought(&a, "seen"));
        known.brought(&a, &blob("seen"));
        known.holds(&a, &blob("seen"));
        assert!(brought(&a, "seen") && !brought(&b, "seen") && !brought(&a, "before"));
        assert!(!known.was_brought_after(known.now(), &a, &blob("seen")));
        known.not_in(&a, &blob("seen"));
        assert!(!brought(&a, "seen"), "the registry has said otherwise");
    }

    #[tokio::test]
    async fn one_miss_ends_the_asking_unless_reading_costs_no_redirect() {
        let asking = Asking::new(false);
        assert!(asking.ask(|| async { true }).await && asking.ask(|| async { true }).await);
        assert!(!asking.ask(|| async { false }).await);
        assert!(!asking.ask(|| async { true }).await, "was asked");
        asking.read(true);
        assert!(!asking.ask(|| async { true }).await, "was asked");
        asking.read(false);
        assert!(asking.ask(|| async { true }).await);
    }

    #[tokio::test]
    async fn many_at_once_ask_once() {
        let (asking, asked) = (Asking::new(false), std::sync::atomic::AtomicUsize::new(0));
        let ask = || async {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            false
        };
        futures_util::future::join_all((0..8).map(|_| asking.ask(ask))).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
