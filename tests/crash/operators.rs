//! The operators' part of the plan: pauses, limits, edits, and finished jobs that are removed.
//!
//! It has a source of chance of its own, so that the rest of a round is what its seed made it before there were operators.

use super::plan::{Action, By, Group, POOL, Plan, QUEUES, Request, Source, Target, Way};
use super::random::Random;

/// Makes another sequence of the seed.
const SALT: u64 = 0x6f70_6572_6174_6f72;

/// Where an older job is held back until a newer one's result is taken back or removed.
pub const OVERTAKEN: (&str, &str) = ("overtaken/app", "latest");

/// What changes of a waiting job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    Priority(i64),
    /// To so many milliseconds from now.
    After(u64),
}

/// What changes of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    Pause,
    Resume,
    Limit(Option<u64>),
}

/// Something that an operator does. Jobs are meant by the number of their acknowledgement, modulo how many there are.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Pauses a job, which is the one that `Resume` means by this number.
    Pause {
        number: usize,
        nth: usize,
        by: By,
    },
    Resume {
        number: usize,
        by: By,
    },
    Edit {
        nth: usize,
        edit: Edit,
        by: By,
    },
    Queue {
        queue: &'static str,
        change: Queue,
        by: By,
    },
    /// `jobs prune`
    Prune {
        older_ms: u64,
        failed_only: bool,
    },
    /// The results at `OVERTAKEN` are taken back; the held job goes on in the same moment.
    TakeBack,
    /// The held jobs at `OVERTAKEN` go on.
    GoOn,
}

/// Adds to the plan what operators do.
pub fn operate(plan: &mut Plan, span: u64) {
    let mut random = Random::new(plan.seed ^ SALT);
    plan.registry_limit = random.percent(50).then(|| random.of(1..=4));
    let random = &mut random;
    let by = |random: &mut Random| if random.percent(50) { By::Cli } else { By::Sql };
    for number in 0..random.count(0..=5) {
        let at = random.of(100..=span);
        let (nth, who) = (random.count(0..=50), by(random));
        plan.step(at, Action::Operate(Operation::Pause { number, nth, by: who }));
        // Some stay paused until the end.
        if random.percent(70) {
            let who = by(random);
            plan.step(at + random.of(50..=900), Action::Operate(Operation::Resume { number, by: who }));
        }
    }
    for _ in 0..random.count(0..=4) {
        let edit = if random.percent(50) {
            Edit::Priority(i64::try_from(random.of(0..=300)).expect("small"))
        } else {
            Edit::After(random.of(0..=900))
        };
        let (nth, by) = (random.count(0..=50), by(random));
        plan.step(random.of(100..=span), Action::Operate(Operation::Edit { nth, edit, by }));
    }
    queues(plan, random, span);
    if random.percent(35) {
        for _ in 0..random.count(1..=2) {
            let (older_ms, failed_only) = (random.of(0..=300), random.percent(25));
            plan.step(random.of(span / 2..=span + 300), Action::Operate(Operation::Prune { older_ms, failed_only }));
        }
    }
    if random.percent(50) {
        overtake(plan, random, span);
    }
}

fn queues(plan: &mut Plan, random: &mut Random, span: u64) {
    let by = |random: &mut Random| if random.percent(50) { By::Cli } else { By::Sql };
    if random.percent(50) {
        let (queue, at) = (*random.pick(&QUEUES), random.of(50..=span / 2));
        for (at, change) in [(at, Queue::Pause), (at + random.of(300..=1400), Queue::Resume)] {
            let by = by(random);
            plan.step(at, Action::Operate(Operation::Queue { queue, change, by }));
        }
    }
    for _ in 0..random.count(0..=3) {
        let limit = random.percent(80).then(|| random.of(1..=3));
        let (queue, by) = (*random.pick(&QUEUES), by(random));
        let change = Queue::Limit(limit);
        plan.step(random.of(50..=span), Action::Operate(Operation::Queue { queue, change, by }));
    }
}

/// An older copy is held, a newer one is done, and its result is taken back or removed before the older one goes on.
fn overtake(plan: &mut Plan, random: &mut Random, span: u64) {
    let mut images: Vec<usize> = (0..POOL).collect();
    random.shuffle(&mut images);
    let at = random.of(50..=span / 3);
    for (number, (way, priority)) in [(Way::Hold, 0), (Way::Enqueue, 1)].into_iter().enumerate() {
        let target = Target::Registry { repository: OVERTAKEN.0.to_owned(), tag: OVERTAKEN.1.to_owned() };
        let source = Source::Pool(images[number]);
        let request =
            Request { source, target, queue: "default", priority, delay_ms: None, max_attempts: None, key: None };
        plan.requests.push(request);
        plan.groups.push(Group { way, requests: vec![plan.requests.len() - 1] });
        let group = plan.groups.len() - 1;
        plan.step(at + 200 * number as u64, Action::Ask { group });
    }
    let taken = at + random.of(700..=1_200);
    if random.percent(50) {
        plan.step(taken, Action::Operate(Operation::TakeBack));
    } else {
        plan.step(taken, Action::Operate(Operation::Prune { older_ms: 0, failed_only: false }));
        plan.step(taken + 250, Action::Operate(Operation::GoOn));
    }
}
