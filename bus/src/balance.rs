//! Partition assignment: deterministic, balanced, and with as few moves as possible.

use std::collections::BTreeMap;

/// A live member and the topics it subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: i64,
    pub(crate) topics: Vec<String>,
}

/// A partition of a subscribed topic, and the member that owned it so far.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) partition: i64,
    pub(crate) topic: String,
    pub(crate) so_far: Option<i64>,
}

/// Assigns each partition to a member that subscribed to its topic; to none when no member did. `partitions` come in
/// the order of topic and number, so that every member computes the same assignment.
pub(crate) fn assign(members: &[Member], partitions: &[Share]) -> BTreeMap<i64, i64> {
    let mut load: BTreeMap<i64, usize> = members.iter().map(|member| (member.id, 0)).collect();
    let mut owners = BTreeMap::new();
    let wants = |id: i64, topic: &str| members.iter().any(|m| m.id == id && m.topics.iter().any(|t| t == topic));

    for share in partitions {
        if let Some(id) = share.so_far.filter(|id| wants(*id, &share.topic)) {
            owners.insert(share.partition, id);
            *load.entry(id).or_default() += 1;
        }
    }
    for share in partitions {
        if owners.contains_key(&share.partition) {
            continue;
        }
        let Some(id) = least_loaded(members, &load, &share.topic) else { continue };
        owners.insert(share.partition, id);
        *load.entry(id).or_default() += 1;
    }
    // Each move takes from a member with at least two more than the receiver, so the sum of squares falls and this ends.
    while let Some((partition, from, to)) = next_move(members, partitions, &owners, &load) {
        owners.insert(partition, to);
        *load.entry(from).or_default() -= 1;
        *load.entry(to).or_default() += 1;
    }
    owners
}

fn least_loaded(members: &[Member], load: &BTreeMap<i64, usize>, topic: &str) -> Option<i64> {
    let wanting = members.iter().filter(|member| member.topics.iter().any(|t| t == topic));
    wanting.map(|member| member.id).min_by_key(|id| (load.get(id).copied().unwrap_or(0), *id))
}

/// The move out of the fullest member that can give one: of its last partition, to the emptiest that wants it.
fn next_move(
    members: &[Member],
    partitions: &[Share],
    owners: &BTreeMap<i64, i64>,
    load: &BTreeMap<i64, usize>,
) -> Option<(i64, i64, i64)> {
    let mut best: Option<(usize, (i64, i64, i64))> = None;
    for share in partitions.iter().rev() {
        let Some(from) = owners.get(&share.partition).copied() else { continue };
        let Some(to) = least_loaded(members, load, &share.topic) else { continue };
        let surplus = load.get(&from)?.saturating_sub(*load.get(&to)?);
        if surplus >= 2 && best.is_none_or(|(most, _)| surplus > most) {
            best = Some((surplus, (share.partition, from, to)));
        }
    }
    best.map(|(_, step)| step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: i64) -> Member {
        Member { id, topics: vec!["t".to_owned()] }
    }

    fn shares(owners: &[Option<i64>]) -> Vec<Share> {
        let share = |(at, so_far): (usize, &Option<i64>)| Share {
            partition: i64::try_from(at).unwrap(),
            topic: "t".to_owned(),
            so_far: *so_far,
        };
        owners.iter().enumerate().map(share).collect()
    }

    fn count(owners: &BTreeMap<i64, i64>, member: i64) -> usize {
        owners.values().filter(|id| **id == member).count()
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_and_loads_differ_by_one_at_most(
            ids in prop::collection::btree_set(1i64..50, 1..8),
            so_far in prop::collection::vec(prop::option::of(1i64..50), 0..40),
        ) {
            let members: Vec<Member> = ids.iter().copied().map(member).collect();
            let owners = assign(&members, &shares(&so_far));
            prop_assert_eq!(owners.len(), so_far.len());
            let loads: Vec<usize> = ids.iter().map(|id| count(&owners, *id)).collect();
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{:?}", loads);
        }

        #[test]
        fn a_join_or_a_leave_moves_no_more_than_it_must(
            members in 1i64..7,
            partitions in 0usize..40,
        ) {
            let before: Vec<Member> = (1..=members).map(member).collect();
            let owners = assign(&before, &shares(&vec![None; partitions]));
            let kept: Vec<Option<i64>> = owners.values().copied().map(Some).collect();

            let mut joined = before.clone();
            joined.push(member(members + 1));
            let after = assign(&joined, &shares(&kept));
            let moved = owners.iter().filter(|(partition, owner)| after[partition] != **owner).count();
            prop_assert_eq!(moved, count(&after, members + 1));

            let after = assign(&before[1..], &shares(&kept));
            for (partition, owner) in &after {
                prop_assert!(owners[partition] == 1 || owners[partition] == *owner);
            }
        }

        #[test]
        fn no_member_gets_a_topic_it_did_not_ask_for(
            wants in prop::collection::vec((any::<bool>(), any::<bool>()), 0..6),
            topics in prop::collection::vec(any::<bool>(), 0..20),
        ) {
            let name = |a: bool| if a { "a".to_owned() } else { "b".to_owned() };
            let members: Vec<Member> = (1i64..)
                .zip(&wants)
                .map(|(id, (a, b))| Member {
                    id,
                    topics: [(*a, true), (*b, false)].iter().filter(|(wanted, _)| *wanted).map(|(_, t)| name(*t)).collect(),
                })
                .collect();
            let partitions: Vec<Share> = (0i64..)
                .zip(&topics)
                .map(|(partition, topic)| Share { partition, topic: name(*topic), so_far: Some(1) })
                .collect();
            let owners = assign(&members, &partitions);
            for share in &partitions {
                let wanted = members.iter().any(|member| member.topics.contains(&share.topic));
                prop_assert_eq!(wanted, owners.contains_key(&share.partition));
                if let Some(owner) = owners.get(&share.partition) {
                    let owner = members.iter().find(|member| member.id == *owner).unwrap();
                    prop_assert!(owner.topics.contains(&share.topic));
                }
            }
        }
    }
}
