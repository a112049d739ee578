//! From what a walk has seen to a path: the main line, packets that are too large, and nothing that leads nowhere.

use std::{collections::HashSet, sync::Arc};

use super::{
    super::Instance,
    Edge, FaultCode, VifPath,
    hop::is_bridge,
    ports::overhead,
    walk::{End, Walk},
};

impl Walk<'_, '_> {
    pub(super) fn finish(mut self, instance: &Instance, why_none: Option<String>) -> VifPath {
        self.check_mtus();
        if self.ends.is_empty() && why_none.is_none() {
            // Bridges in a ring, which lead to each other.
            self.ends.extend(self.hops.iter().rposition(is_bridge).map(|at| (at, End::Nowhere)));
        }
        let best = self.ends.iter().copied().min_by_key(|(at, end)| {
            let line = self.line(*at);
            let faults: usize = line.iter().map(|n| self.hops[*n].faults.len()).sum();
            (*end, faults, line.len())
        });
        let mut main = self.line(best.map_or(0, |(at, _)| at));
        if let Some((at, End::Nowhere)) = best
            && self.vif.interface.attachment.network().is_none()
            && is_bridge(&self.hops[at])
        {
            self.hops[at].fault(FaultCode::NoUplink, "nothing leads on from here: it has no uplink");
        }
        let end = why_none.unwrap_or_else(|| match best {
            Some((_, End::Wire)) => "the frames leave the host by a network card".to_owned(),
            Some((_, End::Host)) => "from there on the host's own routes decide".to_owned(),
            Some((_, End::Beyond)) => "what comes then cannot be seen from here".to_owned(),
            Some((_, End::Nowhere)) => "nothing leads on from there; the host itself may route".to_owned(),
            Some((_, End::Broken)) | None => "the way is broken there".to_owned(),
        });
        if best.is_some_and(|(_, end)| end < End::Nowhere) {
            self.prune(&mut main);
        }
        VifPath {
            instance_uuid: instance.uuid,
            instance_name: Arc::clone(&instance.name),
            display_name: instance.display_name.clone(),
            vif_id: self.vif.id,
            hops: self.hops,
            edges: self.edges,
            main,
            end,
        }
    }

    /// The positions from the guest to this one.
    fn line(&self, at: usize) -> Vec<usize> {
        let mut line: Vec<_> = std::iter::successors(Some(at), |n| self.parents[*n]).collect();
        line.reverse();
        line
    }

    /// Finds hops that are too small for what comes from the guest. A bridge only passes on: its own MTU is the host's.
    fn check_mtus(&mut self) {
        // The size of the largest packet, and whose MTU that is.
        let mut largest: Vec<Option<(u32, Arc<str>)>> = Vec::with_capacity(self.hops.len());
        for n in 0..self.hops.len() {
            let before = self.parents[n].and_then(|parent| largest[parent].clone());
            let hop = &mut self.hops[n];
            let own = hop.mtu.filter(|_| !is_bridge(hop));
            let tunnel = hop.sort.as_deref().map_or(0, overhead);
            // A tunnel's own MTU is that of what goes into it; Open vSwitch's are as large as can be.
            let mut passes = match (before, own) {
                (Some((size, whose)), Some(mtu)) if mtu < size => {
                    let says = format!("its MTU of {mtu} is too small: {whose} lets pass {size}");
                    hop.fault(FaultCode::Mtu, says);
                    Some((mtu, Arc::clone(&hop.name)))
                }
                (None, Some(mtu)) => Some((mtu, Arc::clone(&hop.name))),
                (before, _) => before,
            };
            if let Some((size, whose)) = passes.as_mut().filter(|_| tunnel > 0) {
                *size += tunnel;
                *whose = format!("{whose}, with the {tunnel} bytes of the tunnel {},", hop.name).into();
            }
            largest.push(passes);
        }
    }

    /// Takes away what only leads to bridges that lead nowhere: leftovers, and other guests' own bridges.
    fn prune(&mut self, main: &mut [usize]) {
        let nowhere = |(_, end): &&(usize, End)| *end != End::Nowhere;
        let mut kept: HashSet<usize> = self.ends.iter().filter(nowhere).map(|(at, _)| *at).collect();
        let mut queue: Vec<_> = kept.iter().copied().collect();
        while let Some(at) = queue.pop() {
            for edge in self.edges.iter().filter(|edge| edge.to == at) {
                if kept.insert(edge.from) {
                    queue.push(edge.from);
                }
            }
        }
        let mut places: Vec<Option<usize>> = Vec::with_capacity(self.hops.len());
        let mut next = 0;
        for n in 0..self.hops.len() {
            places.push(kept.contains(&n).then_some(next));
            next += usize::from(kept.contains(&n));
        }
        let mut n = 0;
        self.hops.retain(|_| {
            n += 1;
            places[n - 1].is_some()
        });
        self.edges = (self.edges.iter())
            .filter_map(|edge| Some(Edge { from: places[edge.from]?, to: places[edge.to]?, by: edge.by }))
            .collect();
        for at in main {
            *at = places[*at].unwrap_or_default();
        }
    }
}
