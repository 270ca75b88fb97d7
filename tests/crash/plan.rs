//! What happens in a round, decided before it begins by the seed alone: who asks for what, when, and who is hit by what.
//!
//! Moments are milliseconds after the start. What the machine makes of them differs from run to run; the plan does not.

use super::hits::{self, Stop};
use super::operators::{self, Operation};
use super::random::Random;
use super::support::fake::{Fault, Matcher};
use super::trouble;

/// Where the copies of a target's rivals come from: every rival copies another image, so that a digest names its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image of the pool, under a tag that never moves.
    Pool(usize),
    /// The tag that is moved while the round goes on.
    Moving,
    /// A tag that does not exist.
    Absent,
    /// No reference at all; only SQL lets that in.
    Unparsable,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Registry { repository: String, tag: String },
    Layout { tag: String },
}

/// One copy that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub source: Source,
    pub target: Target,
    pub queue: &'static str,
    pub priority: i64,
    /// Not before so many milliseconds after it was asked for.
    pub delay_ms: Option<u64>,
    pub max_attempts: Option<u64>,
    pub key: Option<String>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `enqueue SRC DST`
    Enqueue,
    /// `enqueue --from-file`
    Load,
    /// Plain SQL, one transaction.
    Insert,
    /// `replicate SRC DST`
    Replicate,
    /// As `Insert`, and paused in the same transaction.
    Hold,
}

/// Requests that are asked for together.
#[derive(Debug, Clone)]
pub struct Group {
    pub way: Way,
    pub requests: Vec<usize>,
}

/// A blow to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    Kill,
    Stop,
    Continue,
    Term,
}

/// Who steers: the program's commands, or SQL typed by somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Cli,
    Sql,
}

#[derive(Debug, Clone)]
pub enum Action {
    /// Starts a worker in this place, unless one runs there.
    Start {
        slot: usize,
    },
    /// Hits the worker in this place.
    Worker {
        slot: usize,
        hit: Hit,
    },
    /// Asks for a group of copies.
    Ask {
        group: usize,
    },
    /// Hits the process that asks for this group.
    Asker {
        group: usize,
        hit: Hit,
    },
    /// Kills the process that loads this list as soon as it has said something: in the middle of its promise.
    Interrupt {
        group: usize,
    },
    /// Steers the so-manieth job that was acknowledged (modulo their number).
    Cancel {
        nth: usize,
        by: By,
    },
    Retry {
        nth: usize,
        by: By,
    },
    Prioritise {
        nth: usize,
        priority: i64,
    },
    /// `jobs retry --state failed`
    RetryFailed,
    /// The moving tag names this image of the pool from now on.
    Move {
        image: usize,
    },
    Pause {
        queue: &'static str,
    },
    Resume {
        queue: &'static str,
    },
    /// `sweep`
    Sweep {
        host: usize,
    },
    /// An operator does something else.
    Operate(Operation),
    /// Lets requests go on that wait at this gate of the destination.
    Release {
        gate: String,
    },
    /// Stops the worker whose tag waits at this gate, if one does by now.
    Ambush {
        target: (&'static str, &'static str),
        gate: String,
    },
    /// Has whoever is stopped in an ambush go on.
    Leave,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub at_ms: u64,
    pub action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// A worker's place.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Which state folder it has.
    pub host: usize,
    pub concurrency: u64,
}

#[derive(Debug)]
pub struct Plan {
    pub seed: u64,
    /// State folders: workers of different ones cannot see each other's locks, as on different machines.
    pub hosts: usize,
    pub slots: Vec<Slot>,
    pub poison_limit: u64,
    pub registry_tries: u64,
    /// Limit of running jobs of the queue `slow`.
    pub slow_limit: u64,
    /// Limit of running jobs that write to the destination.
    pub registry_limit: Option<u64>,
    pub requests: Vec<Request>,
    pub groups: Vec<Group>,
    pub faults: Vec<(Side, Matcher, Fault)>,
    pub steps: Vec<Step>,
}

/// Images of the pool.
pub const POOL: usize = 12;
/// The queues that are used.
pub const QUEUES: [&str; 3] = ["default", "slow", "fast"];
/// Attempts of a job that the CLI enqueues without saying how many.
pub const MAX_ATTEMPTS: u64 = 6;
/// A repository where nobody may write.
pub const DENIED: &str = "denied/app";
/// A time that does not come within the round.
pub const TOMORROW_MS: u64 = 24 * 3600 * 1000;
/// Where a worker is waited for that writes a tag: one that has rivals, or one that has a single job.
pub const AMBUSHES: [(&str, &str); 2] = [("hot/app0", "latest"), ("cold/ambush", "t")];
/// How many rounds of a hundred have a stop that is longer than a lease.
const LONG_PERCENT: u64 = 15;
/// How many have one at the worst moment: while the tag is on its way.
const AMBUSH_PERCENT: u64 = 8;

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let stop = match random.of(1..=100) {
            1..=AMBUSH_PERCENT => Stop::Ambush { lonely: random.percent(50) },
            number if number <= AMBUSH_PERCENT + LONG_PERCENT => Stop::Long,
            _ => Stop::Short,
        };
        // Asking and hitting goes on for so long.
        let span = random.of(1200..=2400);
        let hosts = if random.percent(30) { 2 } else { 1 };
        let slots: Vec<Slot> =
            (0..random.count(2..=4)).map(|slot| Slot { host: slot % hosts, concurrency: random.of(1..=6) }).collect();
        let mut plan = Self {
            seed,
            hosts,
            slots,
            poison_limit: random.of(3..=10),
            registry_tries: random.of(1..=2),
            slow_limit: random.of(1..=2),
            registry_limit: None,
            requests: Vec::new(),
            groups: Vec::new(),
            faults: trouble::faults(&mut random),
            steps: Vec::new(),
        };
        plan.want(&mut random);
        if stop == (Stop::Ambush { lonely: true }) {
            let (repository, tag) = (AMBUSHES[1].0.to_owned(), AMBUSHES[1].1.to_owned());
            plan.request(&mut random, Source::Pool(2), Target::Registry { repository, tag });
            if let Some(request) = plan.requests.last_mut() {
                (request.queue, request.priority, request.delay_ms) = ("default", 0, None);
            }
        }
        plan.share_out(&mut random);
        plan.ask(&mut random, span);
        plan.steer(&mut random, span);
        for gate in trouble::gates(&plan.faults) {
            plan.step(random.of(100..=span + 200), Action::Release { gate });
        }
        hits::on_workers(&mut plan, &mut random, span, stop);
        // An ambush needs its worker in its place.
        if !matches!(stop, Stop::Ambush { .. }) {
            operators::operate(&mut plan, span);
        }
        // Stable: what was planned first for a moment is done first.
        plan.steps.sort_by_key(|step| step.at_ms);
        plan
    }

    /// How old jobs had to be, in milliseconds, for each time that finished ones are removed.
    pub fn prunes(&self) -> impl Iterator<Item = i64> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Operate(Operation::Prune { older_ms, .. }) => Some(i64::try_from(*older_ms).expect("small")),
            _ => None,
        })
    }

    pub fn step(&mut self, at_ms: u64, action: Action) {
        self.steps.push(Step { at_ms, action });
    }

    /// What will be asked for.
    fn want(&mut self, random: &mut Random) {
        let registry = |repository: String, tag: &str| Target::Registry { repository, tag: tag.to_owned() };
        // Targets with many rivals, of different images.
        for hot in 0..random.count(1..=2) {
            let mut images: Vec<usize> = (0..POOL).collect();
            random.shuffle(&mut images);
            for image in images.into_iter().take(random.count(4..=8)) {
                self.request(random, Source::Pool(image), registry(format!("hot/app{hot}"), "latest"));
            }
        }
        // The same copy again and again, of a tag that moves meanwhile.
        for _ in 0..random.count(3..=6) {
            self.request(random, Source::Moving, registry("moving/app".to_owned(), "latest"));
        }
        for cold in 0..random.count(12..=28) {
            let image = random.count(0..=POOL - 1);
            self.request(random, Source::Pool(image), registry(format!("cold/app{}", cold % 5), &format!("t{cold}")));
        }
        let mut images: Vec<usize> = (0..POOL).collect();
        random.shuffle(&mut images);
        for (number, image) in images.into_iter().take(random.count(2..=5)).enumerate() {
            let tag = if number < 2 { "rivals".to_owned() } else { format!("t{number}") };
            self.request(random, Source::Pool(image), Target::Layout { tag });
        }
        self.request(random, Source::Pool(0), registry(DENIED.to_owned(), "t"));
        self.request(random, Source::Absent, registry("cold/absent".to_owned(), "t"));
        self.request(random, Source::Unparsable, registry("cold/unparsable".to_owned(), "t"));
        self.request(random, Source::Pool(1), registry("cold/tomorrow".to_owned(), "t"));
        if let Some(tomorrow) = self.requests.last_mut() {
            tomorrow.delay_ms = Some(TOMORROW_MS);
        }
        // One copy under one key, asked for by several at once.
        for key in 0..random.count(1..=3) {
            let image = random.count(0..=POOL - 1);
            self.request(random, Source::Pool(image), registry(format!("key/app{key}"), "t"));
            let request = self.requests.last_mut().expect("added just now");
            request.key = Some(format!("nightly-{key}"));
            request.delay_ms = None;
            let again = request.clone();
            for _ in 1..random.count(2..=4) {
                self.requests.push(again.clone());
            }
        }
    }

    fn request(&mut self, random: &mut Random, source: Source, target: Target) {
        let rest = Request {
            source,
            target,
            queue: if random.percent(50) { "default" } else { random.pick::<&'static str>(&["slow", "slow", "fast"]) },
            priority: i64::try_from(random.of(0..=200)).expect("small"),
            delay_ms: random.percent(8).then(|| random.of(100..=900)),
            max_attempts: random.percent(15).then(|| random.of(1..=3)),
            key: None,
        };
        self.requests.push(rest);
    }

    /// Who asks for what.
    fn share_out(&mut self, random: &mut Random) {
        let mut order: Vec<usize> = (0..self.requests.len()).collect();
        random.shuffle(&mut order);
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let (way, most) = match random.of(1..=100) {
                1..=45 => (Way::Enqueue, 1),
                46..=60 => (Way::Load, random.count(3..=9)),
                61..=95 => (Way::Insert, random.count(1..=6)),
                _ => (Way::Replicate, 1),
            };
            let fits = |index: &&usize| {
                let request = &self.requests[**index];
                match way {
                    Way::Insert | Way::Hold => true,
                    // A line of a file has no queue and no attempts of its own.
                    Way::Load => {
                        request.source != Source::Unparsable
                            && request.key.is_none()
                            && request.queue == "default"
                            && request.max_attempts.is_none()
                    }
                    Way::Enqueue => request.source != Source::Unparsable,
                    Way::Replicate => request.source != Source::Unparsable && request.delay_ms.is_none(),
                }
            };
            let taken: Vec<usize> = rest.iter().take(most).take_while(fits).copied().collect();
            if taken.is_empty() {
                self.groups.push(Group { way: Way::Insert, requests: vec![rest[0]] });
                rest = &rest[1..];
            } else {
                rest = &rest[taken.len()..];
                self.groups.push(Group { way, requests: taken });
            }
        }
    }

    /// When it is asked for, and who dies over it.
    fn ask(&mut self, random: &mut Random, span: u64) {
        for group in 0..self.groups.len() {
            let at = random.of(0..=span * 4 / 5);
            self.step(at, Action::Ask { group });
            let way = self.groups[group].way;
            let hit = random.percent(if way == Way::Enqueue { 15 } else { 30 });
            if !hit {
                continue;
            }
            let blow = *random.pick(&[Hit::Kill, Hit::Kill, Hit::Stop, Hit::Term]);
            // A command takes some tens of milliseconds; a replicate lives as long as its job.
            let struck = at + random.of(2..=if way == Way::Replicate { 400 } else { 90 });
            if way == Way::Load && blow == Hit::Kill {
                self.step(at + 1, Action::Interrupt { group });
            } else {
                self.step(struck, Action::Asker { group, hit: blow });
            }
            if blow == Hit::Stop {
                self.step(struck + random.of(30..=500), Action::Asker { group, hit: Hit::Continue });
            } else if way == Way::Load || random.percent(50) {
                // Who asked and got no answer asks again.
                self.step(struck + random.of(10..=300), Action::Ask { group });
            }
        }
    }

    /// What operators do meanwhile.
    fn steer(&mut self, random: &mut Random, span: u64) {
        let by = |random: &mut Random| if random.percent(50) { By::Cli } else { By::Sql };
        for _ in 0..random.count(1..=5) {
            let (nth, by) = (random.count(0..=50), by(random));
            self.step(random.of(150..=span), Action::Cancel { nth, by });
        }
        for _ in 0..random.count(1..=5) {
            let (nth, by) = (random.count(0..=50), by(random));
            self.step(random.of(300..=span + 300), Action::Retry { nth, by });
        }
        for _ in 0..random.count(0..=3) {
            let (nth, priority) = (random.count(0..=50), i64::try_from(random.of(0..=300)).expect("small"));
            self.step(random.of(100..=span), Action::Prioritise { nth, priority });
        }
        if random.percent(25) {
            self.step(random.of(600..=span + 300), Action::RetryFailed);
        }
        for _ in 0..random.count(1..=4) {
            let image = random.count(0..=POOL - 1);
            self.step(random.of(50..=span), Action::Move { image });
        }
        if random.percent(40) {
            let queue = *random.pick(&QUEUES);
            let at = random.of(50..=span / 2);
            self.step(at, Action::Pause { queue });
            self.step(at + random.of(100..=600), Action::Resume { queue });
        }
        if random.percent(30) {
            let host = random.count(0..=self.hosts - 1);
            self.step(random.of(200..=span), Action::Sweep { host });
        }
    }
}
