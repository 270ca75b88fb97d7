//! What callers, workers and sweepers do.

use super::super::command::{End, KEYS, QUEUES, Wish};
use super::{Answer, Entry, LATER, MACHINE, Oracle, POISON_LIMIT, RETRY_PAUSE, Row};
use freightliner::job::{Event, JobId, State};
use freightliner::store::{Confirmed, Fence, Held, Settled};

impl Oracle {
    pub(super) fn add(&mut self, wish: &Wish, run_at: i64, actor: &str, parsed: bool) -> JobId {
        self.last_id += 1;
        let id = self.last_id;
        let state = if run_at > self.now { State::Scheduled } else { State::Pending };
        let row = Row {
            source: wish.source,
            target: wish.target,
            state,
            generation: 1,
            attempt: 0,
            max_attempts: 8,
            crash_count: 0,
            epoch: 0,
            beat: 0,
            queue: QUEUES[wish.queue].to_owned(),
            priority: wish.priority,
            worker: None,
            run_at,
            paused: false,
            cancel: false,
            parsed,
            key: wish.key.map(|key| KEYS[key].to_owned()),
            moved: 0,
            failure: None,
            report: false,
            asked: (state == State::Pending).then_some(self.turn),
        };
        if let Some(key) = &row.key {
            self.keys.insert(key.clone(), id);
        }
        self.events.push(Entry {
            job: id,
            generation: 1,
            from: None,
            to: state,
            epoch: 0,
            attempt: 0,
            worker: None,
            actor: actor.to_owned(),
            reason: "enqueued".to_owned(),
        });
        self.rows.insert(id, row);
        id
    }

    pub(super) fn enqueue(&mut self, wishes: &[Wish]) -> Answer {
        let before = self.clone();
        let mut answers = Vec::new();
        for wish in wishes {
            let wish = Wish { target: wish.target % 3, ..wish.clone() };
            match self.enqueue_one(&wish) {
                Ok(answer) => answers.push(answer),
                Err(refused) => {
                    *self = before;
                    return refused;
                }
            }
        }
        Answer::Enqueued(answers)
    }

    pub(super) fn enqueue_one(&mut self, wish: &Wish) -> Result<(JobId, bool), Answer> {
        let key = wish.key.map(|key| KEYS[key].to_owned());
        if let Some(id) = key.as_ref().and_then(|key| self.keys.get(key)).copied() {
            let same = self.rows.get(&id).is_none_or(|row| {
                (row.source, row.target, row.queue.as_str()) == (wish.source, wish.target, QUEUES[wish.queue])
            });
            return if same { Ok((id, false)) } else { Err(Answer::KeyConflict) };
        }
        if wish.joins
            && !wish.later
            && let Some(id) = self.equal(wish)
        {
            self.join(id, wish.priority);
            if let Some(key) = key {
                self.keys.insert(key, id);
            }
            return Ok((id, false));
        }
        let run_at = if wish.later { self.now + LATER } else { self.now };
        Ok((self.add(wish, run_at, "test", true), true))
    }

    /// An equal job that waits: a pending one rather than one that waits for a retry.
    pub(super) fn equal(&self, wish: &Wish) -> Option<JobId> {
        let equal = |row: &Row| {
            row.parsed && (row.source, row.target, row.queue.as_str()) == (wish.source, wish.target, QUEUES[wish.queue])
        };
        let pending = self.rows.iter().filter(|(_, row)| equal(row) && row.state == State::Pending);
        let retrying = || {
            let waits = |row: &Row| row.state == State::Scheduled && row.asked.is_some() && !row.paused;
            self.rows.iter().find(|(_, row)| equal(row) && waits(row))
        };
        pending.min_by_key(|(id, row)| (row.priority, **id)).or_else(retrying).map(|(id, _)| *id)
    }

    pub(super) fn join(&mut self, id: JobId, priority: i64) {
        let (now, turn) = (self.now, self.turn);
        let row = self.row(id);
        let (better, earlier) = (row.priority.min(priority), row.run_at.min(now));
        let changes = (better, earlier) != (row.priority, row.run_at);
        (row.priority, row.run_at, row.asked) = (better, earlier, Some(turn));
        if row.state == State::Scheduled {
            self.step(id, Event::Due, ("test", "an equal job was asked for"));
        } else {
            self.note(id, ("test", if changes { "changed" } else { "an equal job was asked for" }));
        }
    }

    /// `INSERT ... ON CONFLICT DO NOTHING`.
    pub(super) fn insert_by_sql(&mut self, wish: &Wish) -> Answer {
        if wish.key.is_some_and(|key| self.keys.contains_key(KEYS[key])) {
            return Answer::Count(0);
        }
        let run_at = if wish.later { self.now + LATER } else { MACHINE };
        self.add(wish, run_at, "sql", false);
        Answer::Count(1)
    }

    pub(super) fn due(&mut self) -> Answer {
        let now = self.now;
        let due = self.ids(|row| row.state == State::Scheduled && !row.paused && row.run_at <= now);
        for id in &due {
            self.step(*id, Event::Due, ("freightliner", "due"));
        }
        Answer::Count(due.len() as u64)
    }

    pub(super) fn intake(&mut self) -> Answer {
        let (mut accepted, mut rejected) = (0, Vec::new());
        for id in self.ids(|row| row.state == State::Pending && !row.parsed) {
            if self.rows[&id].target < 3 {
                self.row(id).parsed = true;
                accepted += 1;
            } else {
                self.row(id).failure = Some("rejected");
                self.step(id, Event::Reject, ("freightliner", "rejected"));
                rejected.push(id);
            }
        }
        Answer::Intake { accepted, rejected }
    }

    pub fn ids(&self, wanted: impl Fn(&Row) -> bool) -> Vec<JobId> {
        self.rows.iter().filter(|(_, row)| wanted(row)).map(|(id, _)| *id).collect()
    }

    pub fn running(&self, of: impl Fn(&Row) -> bool) -> usize {
        self.ids(|row| row.state == State::Running && of(row)).len()
    }

    pub(super) fn claim(
        &mut self,
        worker: usize,
        room: usize,
        queue: Option<&str>,
        only: Option<JobId>,
        per_registry: Option<u32>,
    ) -> Answer {
        let mut ready = self.ids(Row::claimable);
        ready.sort_by_key(|id| (self.rows[id].priority, *id));
        let mut claims = Vec::new();
        for id in ready {
            let row = self.rows[&id].clone();
            let state = self.queues.get(&row.queue).cloned().unwrap_or_default();
            let full = state
                .limit
                .is_some_and(|limit| self.running(|other| other.queue == row.queue) >= limit as usize)
                || per_registry
                    .is_some_and(|limit| self.running(|other| other.registry() == row.registry()) >= limit as usize);
            let busy = self.running(|other| other.target == row.target) > 0;
            if claims.len() == room
                || state.paused
                || full
                || busy
                || queue.is_some_and(|queue| queue != row.queue)
                || only.is_some_and(|only| only != id)
            {
                continue;
            }
            let row = self.row(id);
            (row.attempt, row.epoch, row.beat) = (row.attempt + 1, row.epoch + 1, 0);
            (row.cancel, row.moved, row.worker) = (false, 0, Some(super::super::worker(worker)));
            claims.push((id, row.epoch, row.attempt, row.generation));
            self.step(id, Event::Claim, ("freightliner", "claimed"));
        }
        self.claims.extend(claims.iter().map(|(job, epoch, _, generation)| {
            let fence = Fence { job: *job, epoch: *epoch };
            (fence, *generation)
        }));
        Answer::Claims(claims)
    }

    /// The row that a fence still covers.
    pub(super) fn held(&mut self, fence: Fence) -> Option<&mut Row> {
        self.rows.get_mut(&fence.job).filter(|row| row.state == State::Running && row.epoch == fence.epoch)
    }

    pub(super) fn renew(&mut self, fence: Fence, moved: u64) -> Held {
        let Some(row) = self.held(fence) else { return Held::Lost };
        (row.beat, row.moved) = (row.beat + 1, moved);
        if row.cancel { Held::CancelRequested } else { Held::Yes }
    }

    pub(super) fn confirm(&mut self, fence: Fence, generation: i64) -> Answer {
        let answer = match self.renew(fence, 0) {
            Held::Lost => Confirmed::Lost,
            Held::CancelRequested => Confirmed::CancelRequested,
            Held::Yes => Confirmed::Yes,
        };
        if answer != Confirmed::Yes || generation > 1 {
            return Answer::Confirmed(answer);
        }
        let (mine, target) = (self.rows[&fence.job].asked, self.rows[&fence.job].target);
        let done = |row: &Row| row.state == State::Completed && row.parsed && row.target == target;
        let completed = self.ids(done).into_iter().map(|id| (self.rows[&id].asked, id)).collect();
        let gone =
            self.gone.iter().filter(|(of, ..)| *of == target).map(|(_, asked, id)| (Some(*asked), *id)).collect();
        let mut right = Vec::new();
        // A newer one that is completed is named, else the newest that was.
        for results in [completed, gone] {
            let results: Vec<(Option<u64>, JobId)> = results;
            let newest = results.iter().map(|(asked, _)| *asked).max().flatten();
            if newest.is_some() && newest >= mine {
                let by = results.into_iter().filter(|(asked, _)| *asked == newest);
                right.extend(by.map(|(_, by)| Answer::Confirmed(Confirmed::Superseded { by })));
                if newest > mine {
                    return Answer::OneOf(right);
                }
            }
        }
        right.push(Answer::Confirmed(Confirmed::Yes));
        Answer::OneOf(right)
    }

    /// How the worker of this lease ended its attempt.
    pub(super) fn ended(&self, fence: Fence) -> Option<State> {
        let of = |event: &&Entry| event.job == fence.job && event.epoch == fence.epoch;
        let ends = |event: &&Entry| event.from == Some(State::Running) && event.to != State::Running;
        let end = self.events.iter().rfind(|event| of(event) && ends(event) && event.actor == "freightliner");
        end.map(|event| event.to)
    }

    pub(super) fn settle(&mut self, fence: Fence, end: End, moved: u64) -> Settled {
        let now = self.now;
        let Some(row) = self.held(fence) else { return Settled::LeaseLost };
        let cancel = row.cancel;
        row.moved = moved;
        row.report = matches!(end, End::Completed);
        match end {
            End::Completed => (row.failure, row.cancel) = (None, false),
            End::WillRetry | End::GaveUp => row.failure = Some("retryable"),
            End::Cancelled | End::Released => {}
        }
        if matches!(end, End::WillRetry) {
            row.run_at = now + RETRY_PAUSE;
        }
        if !matches!(end, End::Released) {
            row.crash_count = 0;
        }
        let (event, reason) = match end {
            End::Completed => (Event::Succeed, "succeeded"),
            End::GaveUp => (Event::GiveUp, "gave up"),
            End::Cancelled => (Event::Cancel, "cancelled"),
            End::WillRetry | End::Released if cancel => (Event::Cancel, "cancelled"),
            End::WillRetry => (Event::Retry, "will retry"),
            End::Released => (Event::Release, "shutdown"),
        };
        let state = self.step(fence.job, event, ("freightliner", reason));
        if matches!(end, End::Released) {
            self.row(fence.job).attempt -= 1;
        }
        Settled::Now(state)
    }

    pub(super) fn reclaim(&mut self, fence: Fence, behind: bool) -> Option<State> {
        let (id, row) = (fence.job, self.held(fence)?.clone());
        if behind {
            return None;
        }
        let deaths = 1 + self
            .events
            .iter()
            .filter(|event| event.job == id && event.generation == row.generation && event.reason == "lease expired")
            .count();
        let deaths = i64::try_from(deaths).unwrap();
        let fruitless = row.moved == 0;
        let in_a_row = if fruitless { row.crash_count + 1 } else { 0 };
        let poison = in_a_row >= POISON_LIMIT || deaths >= 10 * POISON_LIMIT;
        // Deaths after the third are paused for: 1 s, 2 s, 4 s, up to 10 s.
        let pause = if deaths > 3 { (1_000 << (deaths - 4).min(4)).min(10_000) } else { 0 };
        let (now, cancel) = (self.now, row.cancel);
        let row = self.row(id);
        row.epoch += 1;
        (row.crash_count, row.run_at) = (in_a_row, now + pause);
        row.failure = Some(if poison { "poison" } else { "crashed" });
        let event = match (cancel, poison) {
            (true, _) => Event::Cancel,
            (false, true) => Event::GiveUp,
            (false, false) => Event::LeaseExpired,
        };
        let state = self.step(id, event, ("sweeper", "lease expired"));
        self.row(id).attempt -= 1;
        Some(state)
    }
}
