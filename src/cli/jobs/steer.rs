//! `jobs cancel`, `retry`, `pause`, `resume`: how many jobs it were, and of those that were named, which it were not.

use super::selection::{AnyArgs, RetryArgs, WaitingArgs, Wanted};
use crate::cli::Context;
use crate::cli::error::Result;
use crate::cli::report::count as number;
use crate::job::{JobId, State};
use crate::store::{Selection, Store, Why};
use serde::Serialize;

/// So many jobs that were named are looked at one by one, to say which were not changed; of more, only the number is told.
const LOOKED_AT_MOST: usize = 100;

/// `jobs cancel`.
///
/// # Errors
/// An id is unknown (nothing was changed then), or the database cannot be written.
pub async fn cancel(context: &mut Context, arguments: AnyArgs) -> Result {
    let store = context.store().await?;
    let selection = Wanted::from(arguments).selection(&store).await?;
    let before = Before::look(&store, &selection).await?;
    let count = store.cancel(&selection, &context.actor()).await?;
    let why_not = |why: &Why| match why.job.state {
        State::Running if why.job.cancel_requested_at.is_some() => Some("was asked to stop already".to_owned()),
        state if state.is_finished() => Some(format!("is {state}")),
        _ => None,
    };
    before.tell(context, count, "cancelled or asked to stop", why_not).await
}

/// `jobs retry`.
///
/// # Errors
/// An id is unknown (nothing was changed then), or the database cannot be written.
pub async fn retry(context: &mut Context, arguments: RetryArgs) -> Result {
    let store = context.store().await?;
    let selection = Wanted::from(arguments).selection(&store).await?;
    let before = Before::look(&store, &selection).await?;
    let count = store.retry(&selection, &context.actor()).await?;
    let why_not = |why: &Why| match why.job.state {
        state @ (State::Running | State::Pending) => Some(format!("is {state}")),
        _ => None,
    };
    before.tell(context, count, "queued again", why_not).await
}

/// `jobs pause`.
///
/// # Errors
/// An id is unknown (nothing was changed then), or the database cannot be written.
pub async fn pause(context: &mut Context, arguments: WaitingArgs) -> Result {
    let store = context.store().await?;
    let selection = Wanted::from(arguments).selection(&store).await?;
    let before = Before::look(&store, &selection).await?;
    let count = store.pause(&selection, &context.actor()).await?;
    let why_not = |why: &Why| not_waiting(why).or_else(|| why.paused_at.map(|_| "is paused already".to_owned()));
    before.tell(context, count, "paused", why_not).await
}

/// `jobs resume`.
///
/// # Errors
/// An id is unknown (nothing was changed then), or the database cannot be written.
pub async fn resume(context: &mut Context, arguments: WaitingArgs) -> Result {
    let store = context.store().await?;
    let selection = Wanted::from(arguments).selection(&store).await?;
    let before = Before::look(&store, &selection).await?;
    let count = store.resume(&selection, &context.actor()).await?;
    let why_not = |why: &Why| not_waiting(why).or_else(|| why.paused_at.is_none().then(|| "is not paused".to_owned()));
    before.tell(context, count, "resumed", why_not).await
}

/// Why a job that does not wait was passed over.
#[must_use]
pub fn not_waiting(why: &Why) -> Option<String> {
    let state = why.job.state;
    (!matches!(state, State::Scheduled | State::Pending)).then(|| format!("is {state}"))
}

/// The jobs that were named, as they were before a change: afterwards a worker may have taken those that were changed.
pub struct Before {
    store: Store,
    named: Vec<Why>,
}

/// A job that was named and not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Unchanged {
    id: JobId,
    reason: String,
}

impl Before {
    /// Looks at the jobs that were named; at none when a filter chooses them. An unknown id is left to the change itself.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn look(store: &Store, selection: &Selection) -> Result<Self> {
        let mut named = Vec::new();
        if let Selection::Ids(ids) = selection
            && ids.len() <= LOOKED_AT_MOST
        {
            for id in ids {
                named.extend(store.why(*id).await?);
            }
        }
        Ok(Self { store: store.clone(), named })
    }

    /// Prints how many jobs were changed, and of those that were named, which were not. `why_not`: the reason that is seen in
    /// a job, if there is one.
    ///
    /// # Errors
    /// The database cannot be read, or stdout cannot be written.
    pub async fn tell(
        &self,
        context: &mut Context,
        count: u64,
        what: &str,
        why_not: impl Fn(&Why) -> Option<String>,
    ) -> Result {
        let unchanged = self.unchanged(usize::try_from(count).unwrap_or(usize::MAX), why_not).await?;
        if context.format().is_json() {
            return context.output.json(&match unchanged.as_slice() {
                [] => serde_json::json!({"count": count}),
                unchanged => serde_json::json!({"count": count, "unchanged": unchanged}),
            });
        }
        context.output.line(&format!("{} {what}", number(usize::try_from(count).unwrap_or(usize::MAX), "job")))?;
        context.output.flush()?;
        for Unchanged { id, reason } in unchanged {
            context.notes.note(&format!("job {id} was not changed: it {reason}"));
        }
        Ok(())
    }

    /// Of the jobs that were named, those that were not changed, by id.
    async fn unchanged(&self, changed: usize, why_not: impl Fn(&Why) -> Option<String>) -> Result<Vec<Unchanged>> {
        let missing = self.named.len().saturating_sub(changed);
        let (mut unchanged, mut unexplained) = (Vec::new(), Vec::new());
        for why in &self.named {
            match why_not(why) {
                Some(reason) => unchanged.push(Unchanged { id: why.job.id, reason }),
                None => unexplained.push(why.job.id),
            }
        }
        // A worker may have taken some between the look and the change.
        for id in unexplained {
            if unchanged.len() >= missing {
                break;
            }
            let reason = self.store.why(id).await?.as_ref().and_then(&why_not);
            unchanged.extend(reason.map(|reason| Unchanged { id, reason }));
        }
        unchanged.truncate(missing);
        unchanged.sort_by_key(|unchanged| unchanged.id);
        Ok(unchanged)
    }
}
