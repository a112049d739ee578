//! `POST` has its instance read again: what libvirt changed without a word is then known.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use crate::support::{LIMIT, eventually, hypervisor::Hypervisor};

#[test]
#[ignore = "needs root: run by make test"]
fn what_libvirt_changed_without_an_event_is_known_after_a_post_and_a_thousand_posts_are_few_readings() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    let (uuid, tap) = (Hypervisor::id("server_uuid 1"), Hypervisor::id("tap_name 1 0"));
    let record = format!("/host/v1/instances/{uuid}");
    let post = format!("/v2.1/servers/{uuid}/virtual_interfaces");
    let generation = || vifd.get(&record)["generation"].as_u64().unwrap();
    vifd.wait("the guest is known", &record, |record| record["instance"]["vifs"][0]["link_down"].is_null());

    let before = generation();
    hypervisor.virsh("qemu:///system", &format!("domif-setlink instance-00000001 {tap} down"));
    assert_eq!(vifd.request("POST", &post, &[]).status, 202);
    vifd.wait("the cable is out", &record, |record| record["instance"]["vifs"][0]["link_down"] == true);
    assert!(generation() > before);

    // As many as come within a quarter of a second are one reading.
    let readings = || vifd.log().matches("reading domains").count();
    let (readings_before, began) = (readings(), Instant::now());
    let mut stream = UnixStream::connect(&vifd.socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let posts = format!("POST {post} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(1000);
    let posting = std::thread::spawn(move || stream.write_all(posts.as_bytes()).unwrap());
    for _ in 0..1000 {
        // A body does not end with a line.
        answers.find(|line| line.as_ref().unwrap().ends_with("HTTP/1.1 202 Accepted")).unwrap().unwrap();
    }
    posting.join().unwrap();
    let most = 1 + began.elapsed().as_millis() / 250;
    eventually("they were read", || (readings() > readings_before).then_some(()));
    // Any that is still to come.
    std::thread::sleep(Duration::from_millis(500));
    let made = readings() - readings_before;
    assert!(made as u128 <= most, "{made} readings, {most} windows");
}
