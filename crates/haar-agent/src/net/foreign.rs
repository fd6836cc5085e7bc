//! Who else on the host drops forwarded packets: Docker, ufw and the like set their chain's policy so, and no
//! accept in Haar's own table overrides that. Only looks; the rule to add is the operator's to add.

use std::fmt;
use std::process::Command;

use haar_core::id::CloudId;
use serde::Deserialize;

use super::{Error, bridge_prefix};

/// A chain of somebody else's that drops what guests send and get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardDrop {
    /// Which chain, in words.
    pub chain: String,
    /// Commands that let guests of Haar pass it.
    pub remedy: Vec<String>,
}

impl fmt::Display for ForwardDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} drops what is forwarded, so guests reach nobody outside; to let them pass: {}",
            self.chain,
            self.remedy.join("; ")
        )
    }
}

/// Every chain at the forward hook, not Haar's, whose policy is to drop and whose table says nothing of the
/// bridges of this cloud; without a cloud, of any cloud of Haar.
///
/// # Errors
/// [`Error::Nft`] when the rules cannot be listed, as without root.
pub fn forward_drops(cloud: Option<CloudId>) -> Result<Vec<ForwardDrop>, Error> {
    let prefix = cloud.map_or_else(|| "hr".to_owned(), bridge_prefix);
    let listed = run("nft", &["--json", "--terse", "list", "ruleset"])?;
    let mut drops = of_nft(&listed, &prefix)?;
    // The older iptables keeps its rules apart; asking it where it has none would load its modules.
    for (names, program) in
        [("/proc/net/ip_tables_names", "iptables"), ("/proc/net/ip6_tables_names", "ip6tables")]
    {
        let has_filter = std::fs::read_to_string(names).is_ok_and(|text| text.lines().any(|l| l == "filter"));
        if has_filter {
            let legacy = format!("{program}-legacy");
            // Not every distribution has it apart; then its rules are those of nft, seen already.
            let rules = run(&legacy, &["-S"]).unwrap_or_default();
            drops.extend(of_iptables(&legacy, &rules, &prefix));
        }
    }
    Ok(drops)
}

fn run(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let failed = |why: String| Error::Nft(format!("{program} cannot list the rules ({why})"));
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[derive(Deserialize)]
struct Listed {
    nftables: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    hook: String,
    #[serde(default)]
    policy: String,
}

fn of_nft(json: &str, prefix: &str) -> Result<Vec<ForwardDrop>, Error> {
    let listed: Listed = serde_json::from_str(json)
        .map_err(|error| Error::Nft(format!("nft's list of rules cannot be read ({error})")))?;
    let chains: Vec<Chain> = listed
        .nftables
        .iter()
        .filter_map(|entry| serde_json::from_value(entry.get("chain")?.clone()).ok())
        .collect();
    let drops = |chain: &&Chain| chain.hook == "forward" && chain.policy == "drop";
    let judges = |chain: &&Chain| !names(&listed, chain, prefix);
    let found = chains.iter().filter(drops).filter(judges).map(|chain| ForwardDrop {
        chain: format!("chain {} of table {} {}", chain.name, chain.family, chain.table),
        remedy: remedy(chain, &chains, prefix),
    });
    Ok(found.collect())
}

/// Whether some rule of the chain's table is about our bridges: then somebody has seen to it.
fn names(listed: &Listed, chain: &Chain, prefix: &str) -> bool {
    let quoted = format!("\"{prefix}");
    let is_in_table = |rule: &serde_json::Value| {
        let has = |key: &str, value: &str| rule.get(key).and_then(serde_json::Value::as_str) == Some(value);
        has("family", &chain.family) && has("table", &chain.table)
    };
    let mut rules = listed.nftables.iter().filter_map(|entry| entry.get("rule"));
    rules.any(|rule| is_in_table(rule) && rule.to_string().contains(&quoted))
}

fn remedy(chain: &Chain, chains: &[Chain], prefix: &str) -> Vec<String> {
    let program = match (chain.family.as_str(), chain.table.as_str(), chain.name.as_str()) {
        ("ip", "filter", "FORWARD") => "iptables",
        ("ip6", "filter", "FORWARD") => "ip6tables",
        _ => {
            let (family, table, name) = (&chain.family, &chain.table, &chain.name);
            let rule =
                |side| format!("nft insert rule {family} {table} {name} {side} '\"{prefix}*\"' accept");
            return vec![rule("iifname"), rule("oifname")];
        }
    };
    // Docker keeps this chain for others, and puts its own back at the top of FORWARD.
    let is_dockers = |other: &Chain| {
        (&other.family, &other.table) == (&chain.family, &chain.table) && other.name == "DOCKER-USER"
    };
    let target = if chains.iter().any(is_dockers) { "DOCKER-USER" } else { "FORWARD" };
    iptables_rules(program, target, prefix)
}

fn iptables_rules(program: &str, chain: &str, prefix: &str) -> Vec<String> {
    let rule = |side| format!("{program} -I {chain} {side} {prefix}+ -j ACCEPT");
    vec![rule("-i"), rule("-o")]
}

fn of_iptables(program: &str, rules: &str, prefix: &str) -> Option<ForwardDrop> {
    let drops = rules.lines().any(|line| line == "-P FORWARD DROP");
    let names = rules.contains(&format!(" {prefix}"));
    let target = if rules.lines().any(|line| line == "-N DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" };
    (drops && !names).then(|| ForwardDrop {
        chain: format!("chain FORWARD of {program}"),
        remedy: iptables_rules(program, target, prefix),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "filter", "handle": 1}},
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 3,
            "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "haar_abcd0000", "name": "forward", "handle": 3,
            "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}},
        {"rule": {"family": "inet", "table": "haar_abcd0000", "chain": "forward",
            "expr": [{"match": {"left": {"meta": {"key": "iifname"}}, "right": "hrabcd-00000001"}}]}}]}"#;

    #[test]
    fn a_drop_of_dockers_is_named_with_the_chain_it_keeps_for_others() {
        let drops = of_nft(DOCKER, "hrabcd-").unwrap();
        assert_eq!(drops.len(), 1, "{drops:?}");
        assert_eq!(drops[0].chain, "chain FORWARD of table ip filter");
        assert_eq!(drops[0].remedy[0], "iptables -I DOCKER-USER -i hrabcd-+ -j ACCEPT");
    }

    #[test]
    fn a_table_that_lets_our_bridges_pass_is_not_named_again() {
        let seen_to = DOCKER.replace(
            "\"family\": \"inet\", \"table\": \"haar_abcd0000\", \"chain\": \"forward\"",
            "\"family\": \"ip\", \"table\": \"filter\", \"chain\": \"DOCKER-USER\"",
        );
        assert_eq!(of_nft(&seen_to, "hrabcd-").unwrap(), []);
        assert_eq!(of_nft(&seen_to, "hr1234-").unwrap().len(), 1, "another cloud's bridges are not ours");
    }

    #[test]
    fn the_older_iptables_is_read_too() {
        let rules = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n";
        let found = of_iptables("iptables-legacy", rules, "hrabcd-").unwrap();
        assert_eq!(found.remedy[1], "iptables-legacy -I FORWARD -o hrabcd-+ -j ACCEPT");
        let passed = format!("{rules}-A FORWARD -i hrabcd-+ -j ACCEPT\n");
        assert_eq!(of_iptables("iptables-legacy", &passed, "hrabcd-"), None);
        assert_eq!(of_iptables("iptables-legacy", "-P FORWARD ACCEPT\n", "hrabcd-"), None);
    }
}
