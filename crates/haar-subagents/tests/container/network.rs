//! A container's network: its address, its MAC, and a neighbour on the same bridge.

use serde_json::json;

use crate::harness::*;
use crate::make_image::script;

#[tokio::test]
async fn two_containers_on_a_bridge_reach_each_other_by_their_addresses() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "ip link show eth0; ip addr show dev eth0; ip route; \
        if [ $(hostname) = caller ]; then ping -c 1 -W 5 10.98.7.10 && echo reached; fi; sleep 1000";
    agent.load(&world.request(&script(words))).await.unwrap();
    agent.run(&world.guest(GUEST)).await;
    let mut caller = world.guest(OTHER_GUEST);
    caller["haar"]["name"] = "caller".into();
    caller["nics"][0]["gateway"] = "10.98.7.10".into();
    agent.run(&caller).await;
    until("it has been reached", || world.log(OTHER_GUEST).contains("reached")).await;
    let log = world.log(OTHER_GUEST);
    for words in ["02:00:00:00:00:0b", "10.98.7.11/24", "default via 10.98.7.10 dev eth0"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    for guest in [world.guest(GUEST), caller] {
        agent.guest("DeleteContainer", &guest).await.unwrap();
    }
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_has_as_many_interfaces_as_were_asked_for() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "ip addr; ip -6 route; echo done; sleep 1000";
    agent.load(&world.request(&script(words))).await.unwrap();
    let mut guest = world.guest(GUEST);
    let mut second = guest["nics"][0].clone();
    second["netmask"] = "64".into();
    let mut third = second.clone();
    for (nic, network, mac, name) in [(&mut second, 98, "c", "data"), (&mut third, 99, "d", "more")] {
        nic["address"] = format!("fd00:{network}::2").into();
        nic["gateway"] = format!("fd00:{network}::1").into();
        nic["mac"] = format!("02:00:00:00:00:0{mac}").into();
        nic["name"] = name.into();
    }
    guest["nics"].as_array_mut().unwrap().extend([second, third]);
    let running = agent.run(&guest).await;
    assert_ne!(running["nics"][0]["device"], running["nics"][1]["device"]);
    until("it has spoken", || world.log(GUEST).contains("done")).await;
    let log = world.log(GUEST);
    assert!(log.contains("data@") && log.contains("fd00:98::2/64") && log.contains("eth0@"), "{log}");
    // The kernel lists the way it takes first, and that is the first interface's.
    let way = log.lines().find(|line| line.starts_with("default")).unwrap_or_default();
    assert!(way.starts_with("default via fd00:98::1 dev data"), "{log}");
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
    let info: serde_json::Value = agent.call("GetInfo", &json!({})).await.unwrap();
    assert_eq!(info["Containers"], 0);
}
