//! What may be done to the queue, as data: a random list of these is a test case, and a failing one prints as it stands here.

use freightliner::job::State;
use freightliner::store::QueueChange;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Sources of copies.
pub const SOURCES: [&str; 2] = ["a.example/app:0", "a.example/app:1"];
/// Targets, of two registries. The last does not parse: only plain SQL can ask for it.
pub const TARGETS: [&str; 4] = ["b.example/app:0", "b.example/app:1", "c.example/app:2", "b.example/UPPER:3"];
/// Queues.
pub const QUEUES: [&str; 2] = ["default", "slow"];
/// Idempotency keys.
pub const KEYS: [&str; 2] = ["nightly", "weekly"];

/// A job that is asked for. Fields are indexes into the lists above.
#[derive(Debug, Clone)]
pub struct Wish {
    pub source: usize,
    pub target: usize,
    pub queue: usize,
    pub priority: i64,
    /// In a few hours, not now.
    pub later: bool,
    pub key: Option<usize>,
    /// May be the same as an equal job that waits.
    pub joins: bool,
}

/// Whom an operator means. Numbers stand for ids, also for some that do not exist.
#[derive(Debug, Clone)]
pub enum Which {
    Ids(Vec<usize>),
    In(State),
    Queue(usize),
}

/// When a job is to run.
#[derive(Debug, Clone, Copy)]
pub enum When {
    LongAgo,
    Later,
}

/// What an edit changes.
#[derive(Debug, Clone)]
pub struct Change {
    pub priority: Option<i64>,
    pub run_at: Option<When>,
    pub max_attempts: Option<i64>,
    pub queue: Option<usize>,
}

/// How a worker ends an attempt.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Completed,
    WillRetry,
    GaveUp,
    Cancelled,
    Released,
}

/// What somebody's SQL does to a row.
#[derive(Debug, Clone, Copy)]
pub enum Sql {
    Cancel,
    RunAt(When),
    Priority(i64),
    Queue(usize),
    Pause,
    Resume,
    State(State),
    /// Never allowed.
    Generation,
    /// Never allowed.
    Worker,
    /// Never allowed.
    Epoch,
}

/// One step. Numbers of jobs and claims are taken modulo what there is; claim 0 is the newest.
#[derive(Debug, Clone)]
pub enum Command {
    Enqueue(Vec<Wish>),
    Insert(Wish),
    Due,
    Intake,
    Claim {
        worker: usize,
        room: usize,
        queue: Option<usize>,
        only: Option<usize>,
        per_registry: Option<u32>,
        intake: bool,
    },
    /// By a claim that may be stale: claims are kept for ever.
    Renew {
        claim: usize,
        moved: u64,
    },
    Confirm {
        claim: usize,
    },
    Settle {
        claim: usize,
        end: End,
        moved: u64,
    },
    /// With the lease of a claim as it is, or as it was before the last renewal.
    Reclaim {
        claim: usize,
        behind: bool,
    },
    Cancel(Which),
    Retry(Which),
    Pause(Which),
    Resume(Which),
    Edit(Which, Change),
    Queue(usize, QueueChange),
    Prune {
        failed_too: bool,
        keys_too: bool,
    },
    Invalidate,
    Advance {
        hours: u64,
    },
    Sql(usize, Sql),
}

fn wish() -> impl Strategy<Value = Wish> {
    let key = prop_oneof![3 => Just(None), 1 => (0..KEYS.len()).prop_map(Some)];
    let place = (0..SOURCES.len(), 0..TARGETS.len(), 0..QUEUES.len());
    (place, 99..102_i64, prop::bool::weighted(0.2), key, prop::bool::weighted(0.7)).prop_map(
        |((source, target, queue), priority, later, key, joins)| Wish {
            source,
            target,
            queue,
            priority,
            later,
            key,
            joins,
        },
    )
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(State::ALL.to_vec())
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        6 => vec(0..20_usize, 1..3).prop_map(Which::Ids),
        1 => state().prop_map(Which::In),
        1 => (0..QUEUES.len()).prop_map(Which::Queue),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![Just(When::LongAgo), Just(When::Later)]
}

fn change() -> impl Strategy<Value = Change> {
    (option::of(99..102_i64), option::of(when()), option::of(1..4_i64), option::of(0..QUEUES.len()))
        .prop_map(|(priority, run_at, max_attempts, queue)| Change { priority, run_at, max_attempts, queue })
}

fn end() -> impl Strategy<Value = End> {
    prop::sample::select(vec![End::Completed, End::WillRetry, End::GaveUp, End::Cancelled, End::Released])
}

fn sql() -> impl Strategy<Value = Sql> {
    prop_oneof![
        1 => Just(Sql::Cancel),
        1 => when().prop_map(Sql::RunAt),
        1 => (99..102_i64).prop_map(Sql::Priority),
        1 => (0..QUEUES.len()).prop_map(Sql::Queue),
        1 => Just(Sql::Pause),
        1 => Just(Sql::Resume),
        3 => state().prop_map(Sql::State),
        1 => prop::sample::select(vec![Sql::Generation, Sql::Worker, Sql::Epoch]),
    ]
}

fn queue_change() -> impl Strategy<Value = QueueChange> {
    prop_oneof![
        1 => Just(QueueChange::Pause),
        3 => Just(QueueChange::Resume),
        1 => option::of(1..3_u32).prop_map(QueueChange::Limit),
    ]
}

fn claim() -> impl Strategy<Value = Command> {
    let queue = prop_oneof![4 => Just(None), 1 => (0..QUEUES.len()).prop_map(Some)];
    let only = prop_oneof![7 => Just(None), 1 => (0..20_usize).prop_map(Some)];
    let per_registry = prop_oneof![4 => Just(None), 1 => (1..3_u32).prop_map(Some)];
    (0..2_usize, prop_oneof![1 => 0..1_usize, 9 => 1..4_usize], queue, only, per_registry, any::<bool>()).prop_map(
        |(worker, room, queue, only, per_registry, intake)| Command::Claim {
            worker,
            room,
            queue,
            only,
            per_registry,
            intake,
        },
    )
}

/// What a worker does with a claim, or a sweeper: mostly with one of the newest.
fn with_claim() -> impl Strategy<Value = Command> {
    let claim = || prop_oneof![3 => 0..2_usize, 1 => 0..20_usize];
    let moved = || prop_oneof![Just(0_u64), Just(7_u64)];
    prop_oneof![
        2 => (claim(), moved()).prop_map(|(claim, moved)| Command::Renew { claim, moved }),
        3 => claim().prop_map(|claim| Command::Confirm { claim }),
        6 => (claim(), end(), moved()).prop_map(|(claim, end, moved)| Command::Settle { claim, end, moved }),
        4 => (claim(), prop::bool::weighted(0.2)).prop_map(|(claim, behind)| Command::Reclaim { claim, behind }),
    ]
}

fn by_operator() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => which().prop_map(Command::Cancel),
        6 => which().prop_map(Command::Retry),
        4 => which().prop_map(Command::Pause),
        5 => which().prop_map(Command::Resume),
        5 => (which(), change()).prop_map(|(which, change)| Command::Edit(which, change)),
        5 => (0..QUEUES.len(), queue_change()).prop_map(|(queue, change)| Command::Queue(queue, change)),
        1 => any::<(bool, bool)>().prop_map(|(failed_too, keys_too)| Command::Prune { failed_too, keys_too }),
        1 => Just(Command::Invalidate),
    ]
}

/// Two copies to one target of which the older is done last, perhaps when the newer one's result is taken back or removed.
fn rivals() -> impl Strategy<Value = Vec<Command>> {
    let claim = |room| Command::Claim { worker: 0, room, queue: None, only: None, per_registry: None, intake: false };
    let all = move || claim(3);
    let leaves = prop::sample::select(vec![
        None,
        Some(Command::Retry(Which::In(State::Completed))),
        Some(Command::Prune { failed_too: true, keys_too: false }),
    ]);
    let ends = |end| Command::Settle { claim: 0, end, moved: 0 };
    (wish(), wish(), leaves).prop_map(move |(older, newer, leaves)| {
        let older = Wish { later: false, key: None, priority: 1, ..older };
        let newer = Wish { later: false, key: None, priority: 200, joins: false, target: older.target, ..newer };
        let first = vec![Command::Enqueue(vec![older]), all(), ends(End::WillRetry)];
        let second = vec![Command::Enqueue(vec![newer]), all(), ends(End::Completed)];
        let again = vec![Command::Advance { hours: 3 }, Command::Due, claim(1), Command::Confirm { claim: 0 }];
        [first, second, leaves.into_iter().collect(), again].concat()
    })
}

/// One command, or a few that go together: work is rarely come to by chance.
fn few() -> impl Strategy<Value = Vec<Command>> {
    let work = (claim(), vec(with_claim(), 1..4)).prop_map(|(claim, with)| [vec![Command::Due, claim], with].concat());
    let cancelled = || Command::Cancel(Which::In(State::Running));
    prop_oneof![
        4 => vec(wish(), 1..4).prop_map(|wishes| vec![Command::Enqueue(wishes)]),
        3 => wish().prop_map(|wish| vec![Command::Insert(wish)]),
        1 => Just(vec![Command::Due]),
        2 => Just(vec![Command::Intake]),
        2 => claim().prop_map(|claim| vec![claim]),
        8 => work,
        1 => rivals(),
        1 => (claim(), with_claim()).prop_map(move |(claim, with)| vec![claim, cancelled(), with]),
        5 => with_claim().prop_map(|with| vec![with]),
        6 => by_operator().prop_map(|command| vec![command]),
        3 => (1..6_u64).prop_map(|hours| vec![Command::Advance { hours }]),
        5 => (0..20_usize, sql()).prop_map(|(job, sql)| vec![Command::Sql(job, sql)]),
    ]
}

/// A test case.
pub fn commands() -> impl Strategy<Value = Vec<Command>> {
    vec(few(), 1..40).prop_map(|commands| commands.concat())
}
