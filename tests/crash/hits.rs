//! The killer's part of the plan: what happens to the workers.

use super::plan::{AMBUSHES, Action, Hit, Plan, Side};
use super::random::Random;
use super::support::fake::{Fault, Matcher};
use std::ops::RangeInclusive;

/// A stop that is longer than a lease: within it the lease runs out, and mostly a sweeper of another process, which has to
/// see it unchanged for the whole time and a margin, takes the jobs.
const LONG_STOP_MS: RangeInclusive<u64> = 3_300..=5_900;

/// The longest stop of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Shorter than a lease.
    Short,
    /// Of one worker, for longer than its lease.
    Long,
    /// That too, and while the tag of an image is on its way to the destination, where it arrives after the stop. `lonely`: the
    /// next one to write that tag has the same job, and is in the middle of it when the late one wakes up.
    Ambush { lonely: bool },
}

/// Starts and hits of every worker.
pub fn on_workers(plan: &mut Plan, random: &mut Random, span: u64, stop: Stop) {
    if let Stop::Ambush { lonely } = stop {
        return ambush(plan, random, lonely);
    }
    let long = stop == Stop::Long;
    for slot in 0..plan.slots.len() {
        let start = random.of(0..=150);
        plan.step(start, Action::Start { slot });
        if long && slot == 0 {
            long_stop(plan, random, span, slot);
            continue;
        }
        let mut at = start;
        loop {
            at += random.of(100..=700);
            if at > span {
                break;
            }
            at = one(plan, random, slot, at);
        }
    }
}

/// One hit and what follows it; the moment when the worker is itself again.
fn one(plan: &mut Plan, random: &mut Random, slot: usize, at: u64) -> u64 {
    let hit = |hit| Action::Worker { slot, hit };
    match random.of(1..=100) {
        1..=45 => {
            plan.step(at, hit(Hit::Kill));
            let back = at + random.of(10..=400);
            plan.step(back, Action::Start { slot });
            back
        }
        46..=70 => {
            plan.step(at, hit(Hit::Stop));
            let back = at + random.of(30..=900);
            match random.of(1..=4) {
                // Some never get up again.
                1 => {
                    plan.step(back, hit(Hit::Kill));
                    plan.step(back + 20, Action::Start { slot });
                }
                2 => {
                    plan.step(back.saturating_sub(10), hit(Hit::Term));
                    plan.step(back, hit(Hit::Continue));
                    plan.step(back + 100, Action::Start { slot });
                }
                _ => plan.step(back, hit(Hit::Continue)),
            }
            back
        }
        71..=95 => {
            plan.step(at, hit(Hit::Term));
            if random.percent(20) {
                plan.step(at + random.of(5..=200), hit(Hit::Term));
            }
            let back = at + random.of(50..=500);
            plan.step(back, Action::Start { slot });
            back
        }
        _ => at,
    }
}

fn long_stop(plan: &mut Plan, random: &mut Random, span: u64, slot: usize) {
    let at = random.of(300..=span.max(301) - 1);
    let up = at + random.of(LONG_STOP_MS);
    plan.step(at, Action::Worker { slot, hit: Hit::Stop });
    plan.step(up, Action::Worker { slot, hit: Hit::Continue });
    // The others go on undisturbed for a moment, so that the late one meets them.
    plan.step(up + random.of(100..=500), Action::Sweep { host: plan.slots[slot].host });
}

/// All workers live; one of them is stopped with a tag on its way. Others take its job and its target, and then the tag lands.
fn ambush(plan: &mut Plan, random: &mut Random, lonely: bool) {
    let target = AMBUSHES[usize::from(lonely)];
    let (gate, again) = ("ambush".to_owned(), "ambush again".to_owned());
    let matcher = || Matcher::new("PUT", &format!("/v2/{}/manifests/{}", target.0, target.1));
    let mut faults = vec![(Side::Destination, matcher(), Fault::HoldUntil(gate.clone()))];
    if lonely {
        faults.push((Side::Destination, matcher(), Fault::HoldUntil(again.clone())));
    }
    plan.faults.splice(0..0, faults);
    for slot in 0..plan.slots.len() {
        plan.step(random.of(0..=150), Action::Start { slot });
    }
    let mut at = 300;
    while at < 2_500 {
        plan.step(at, Action::Ambush { target, gate: gate.clone() });
        at += 50;
    }
    let up = at + random.of(LONG_STOP_MS);
    plan.step(up, Action::Release { gate });
    plan.step(up + random.of(20..=300), Action::Leave);
    plan.step(up + random.of(500..=900), Action::Release { gate: again });
}
