//! The counters of each VIF that a link carries, and who it is.
//!
//! Counters bear a small key that stays the same while the VIF is on this device: instance, VIF and device. Names, which
//! are long and change, are in one info metric, to be joined by that key.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tokio::task::yield_now;

use super::exposition::{Exposition, Labels};
use crate::{
    http::host,
    inventory::{Instance, Inventory, Vif, births::Births},
    source::netlink::link::{Counters, Link},
};

/// So many VIFs are written before others get the thread: some tenths of a millisecond.
const BATCH: usize = 256;

/// A family of counters: its name, its help, and which of the counters it has.
type Family = (&'static str, &'static str, fn(&Counters) -> u64);

/// In the view of the guest.
const FAMILIES: [Family; 8] = [
    ("vifd_vif_receive_bytes", "Bytes that the guest received.", |c| c.rx_bytes),
    ("vifd_vif_receive_packets", "Packets that the guest received.", |c| c.rx_packets),
    ("vifd_vif_receive_errors", "Errors on the way to the guest.", |c| c.rx_errors),
    ("vifd_vif_receive_drops", "Packets to the guest that were dropped.", |c| c.rx_dropped),
    ("vifd_vif_transmit_bytes", "Bytes that the guest sent.", |c| c.tx_bytes),
    ("vifd_vif_transmit_packets", "Packets that the guest sent.", |c| c.tx_packets),
    ("vifd_vif_transmit_errors", "Errors on the way from the guest.", |c| c.tx_errors),
    ("vifd_vif_transmit_drops", "Packets from the guest that were dropped.", |c| c.tx_dropped),
];

/// A VIF with the link that carries it.
struct Carried<'a> {
    instance: &'a Instance,
    vif: &'a Vif,
    link: &'a Link,
    key: Labels,
}

/// Writes at most `most` VIFs, and how many were left out.
pub(super) async fn write(
    exposition: &mut Exposition,
    inventory: &Inventory,
    births: &Births,
    counters: Option<&HashMap<u32, Counters>>,
    most: usize,
) {
    let (mut vifs, duplicates) = carried(inventory);
    let cut = vifs.len().saturating_sub(most);
    vifs.truncate(most);
    exposition
        .gauge(
            "vifd_vifs_left_out",
            "VIFs whose counters are not here: beyond [metrics] max_interfaces, or the same twice.",
        )
        .sample(&Labels::default().with("reason", "limit"), cut)
        .sample(&Labels::default().with("reason", "duplicate"), duplicates);

    let mut info = exposition.info("vifd_vif", "Who a VIF is, to be joined by instance_uuid, vif_id and device.");
    for (n, vif) in vifs.iter().enumerate() {
        info.sample(&vif.names(inventory));
        rest(n).await;
    }
    let Some(counters) = counters else { return };
    // One whose link came after, or went before, the counters were read has none this time.
    let counted: Vec<_> = vifs.iter().filter_map(|vif| vif.counted(counters, births)).collect();
    for (name, help, of) in FAMILIES {
        let mut family = exposition.counter(name, help);
        for (n, (key, counters, created)) in counted.iter().enumerate() {
            match created {
                Some(created) => family.created(key, of(counters), *created),
                None => drop(family.sample(key, of(counters))),
            }
            rest(n).await;
        }
    }
}

async fn rest(n: usize) {
    if n % BATCH == BATCH - 1 {
        yield_now().await;
    }
}

/// The VIFs that links carry, each key once, and how many were there again.
fn carried(inventory: &Inventory) -> (Vec<Carried<'_>>, usize) {
    let (mut seen, mut vifs, mut duplicates) = (HashSet::new(), Vec::new(), 0);
    for instance in &inventory.instances {
        for vif in &instance.vifs {
            let link = vif.device.as_ref().and_then(|device| inventory.links().get(device.index));
            let Some(link) = link.map(AsRef::as_ref) else { continue };
            if !seen.insert((instance.uuid, vif.id, link.index)) {
                duplicates += 1;
                continue;
            }
            let key = Labels::default()
                .with("instance_uuid", instance.uuid)
                .with("vif_id", vif.id)
                .with("device", &link.name);
            vifs.push(Carried { instance, vif, link, key });
        }
    }
    (vifs, duplicates)
}

impl Carried<'_> {
    fn names(&self, inventory: &Inventory) -> Labels {
        let Self { instance, vif, link, key } = self;
        let project = instance.project.as_ref();
        let bridge = host::controller_name(inventory, link);
        key.clone()
            .with("libvirt_name", &instance.name)
            .with("display_name", instance.display_name.as_deref().unwrap_or_default())
            .with("project_id", project.map_or("", |project| &project.id))
            .with("project_name", project.and_then(|project| project.name.as_deref()).unwrap_or_default())
            .with("mac", vif.interface.mac)
            .with("ifindex", link.index)
            .with("kind", &link.kind)
            .with("bridge", bridge.as_deref().unwrap_or_default())
    }

    fn counted(
        &self,
        counters: &HashMap<u32, Counters>,
        births: &Births,
    ) -> Option<(&Labels, Counters, Option<Timestamp>)> {
        let counters = counters.get(&self.link.index)?.in_guests_view(&self.link.kind);
        Some((&self.key, counters, births.of(self.link.index).map(Timestamp::from)))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{super::exposition::Format, *};
    use crate::inventory::testing::{PORT, bridged, joined, link, nova, view};

    const MAC: &str = "fa:16:3e:00:00:01";

    async fn written(inventory: &Inventory, most: usize) -> Vec<String> {
        let counted = |n| (n, Counters { rx_bytes: 10, tx_bytes: 20, tx_dropped: 3, ..Counters::default() });
        let counters = (1..2000).map(counted).collect();
        let mut exposition = Exposition::new(Format::OpenMetrics);
        write(&mut exposition, inventory, &Births::default(), Some(&counters), most).await;
        exposition.finish().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn counters_are_the_guests_and_names_are_apart_from_them() {
        let name = "we\"b\n\u{1b}[2J\\";
        let xml = nova(&bridged(MAC, "tapa756caef-c7", ""), &[PORT]).replace("<n:name>web</n:name>", &{
            let escaped = name.replace('\u{1b}', "&#x85;").replace('\n', "&#10;");
            format!("<n:name>{escaped}</n:name>")
        });
        let lines = written(&joined(&view(&[xml], &[link(7, "tapa756caef-c7")])), 10).await;
        let key = "instance_uuid=\"874092fe-19a7-44bd-a16a-4fb617bfef7a\",\
                   vif_id=\"a756caef-c731-4df1-a814-0dba057b039f\",device=\"tapa756caef-c7\"";
        for line in [
            format!("vifd_vif_receive_bytes_total{{{key}}} 20"),
            format!("vifd_vif_receive_drops_total{{{key}}} 3"),
            format!("vifd_vif_transmit_bytes_total{{{key}}} 10"),
            format!(
                "vifd_vif_info{{{key},libvirt_name=\"instance-0000002a\",\
                 display_name=\"we\\\"b\u{fffd}\u{fffd}[2J\\\\\",project_id=\"p1\",project_name=\"shop\",\
                 mac=\"fa:16:3e:00:00:01\",ifindex=\"7\",kind=\"tap\",bridge=\"\"}} 1"
            ),
        ] {
            assert!(lines.contains(&line), "{line} is not among {lines:#?}");
        }
    }

    #[tokio::test]
    async fn no_series_is_there_twice_whatever_domains_say() {
        // Two interfaces with one id, upon one device.
        let same = bridged(MAC, "tap0", &format!("<alias name='ua-{PORT}'/>"));
        let inventory = joined(&view(&[nova(&same.repeat(2), &[])], &[link(1, "tap0")]));
        let lines = written(&inventory, 10).await;
        let mut names: Vec<_> = lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{lines:#?}");
        assert!(lines.contains(&"vifd_vifs_left_out{reason=\"duplicate\"} 1".to_owned()), "{lines:#?}");
    }

    #[tokio::test]
    async fn what_is_beyond_the_cap_is_counted() {
        let vif = |n: u128| bridged(MAC, &format!("tap{n}"), &format!("<alias name='ua-{}'/>", Uuid::from_u128(n)));
        let interfaces: String = (1..=1000).map(vif).collect();
        let links: Vec<_> = (1..=1000).map(|n| link(n, &format!("tap{n}"))).collect();
        let inventory = joined(&view(&[nova(&interfaces, &[])], &links));
        for (most, infos, cut) in [(600, 600, 400), (1000, 1000, 0), (0, 0, 1000)] {
            let lines = written(&inventory, most).await;
            let count = |name: &str| lines.iter().filter(|line| line.starts_with(name)).count();
            assert_eq!(count("vifd_vif_info{"), infos);
            assert_eq!(count("vifd_vif_receive_bytes_total{"), infos);
            assert!(lines.contains(&format!("vifd_vifs_left_out{{reason=\"limit\"}} {cut}")), "{most}");
        }
    }

    #[tokio::test]
    async fn a_vif_whose_link_has_no_counters_is_known_all_the_same() {
        let inventory = joined(&view(&[nova(&bridged(MAC, "tap0", ""), &[PORT])], &[link(3000, "tap0")]));
        let lines = written(&inventory, 10).await;
        assert!(lines.iter().any(|line| line.starts_with("vifd_vif_info{")));
        assert!(!lines.iter().any(|line| line.starts_with("vifd_vif_receive")), "{lines:#?}");
    }
}
