//! The first start: a cloud's id, an admin's token, and what a first guest needs beside an image.
//!
//! All of it is one commit, so that a store is either founded or empty. Secrets are told to whoever
//! started the controller, once.

use haar_core::address::Cidr;
use haar_core::fence::MonoMs;
use haar_core::firewall::{Action, FwGroupSpec, FwRule, Protocol};
use haar_core::flavor::FlavorSpec;
use haar_core::fleet::Fleet;
use haar_core::fleet::command::{Alive, Command, Env};
use haar_core::id::{CloudId, FwGroupId, HypervisorId, NetworkId, TokenId};
use haar_core::ipam::usable;
use haar_core::name::Name;
use haar_core::network::{Gateway, NetworkSpec, Reach, SubnetSpec};
use haar_core::refusal::Refusal;
use haar_core::token::Role;
use haar_core::units::{MiB, Resources};
use haar_store::Disk;
use uuid::Uuid;

use crate::auth::{Secret, random};
use crate::engine::{lot, store_fence};
use crate::events::Ring;
use crate::liveness::Clock;
use crate::records;

/// What was made at this start, told once.
#[derive(Debug)]
pub struct Bootstrap {
    /// The cloud's id.
    pub cloud: CloudId,
    /// An admin's token.
    pub admin: Secret,
}

/// Why a store cannot be founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The store fails.
    #[error("the new store cannot be written")]
    Store(#[from] haar_store::Error),
    /// The range told does not do.
    #[error("the default network cannot be made")]
    Refused(#[from] Refusal),
}

/// The flavors of a new cloud: name, CPUs, MiB of memory, MiB of disk.
const FLAVORS: [(&str, u32, u64, u64); 4] = [
    ("tiny", 1, 256, 1_024),
    ("small", 1, 1_024, 10_240),
    ("medium", 2, 4_096, 40_960),
    ("large", 4, 8_192, 81_920),
];

/// Founds an empty store.
///
/// # Errors
/// [`FoundError`]; then it is as empty as before, or nobody knows, and the next start tells.
pub(crate) fn found(
    disk: &mut dyn Disk,
    range: Cidr,
    dns: &[std::net::IpAddr],
    events_kept: u64,
) -> Result<Bootstrap, FoundError> {
    let cloud = CloudId(new_id());
    let admin = Secret::random();
    let mut fleet = Fleet::empty();
    let mut decisions = vec![Fleet::founding(cloud, Clock::wall())];
    fleet.apply(&decisions[0]);
    for command in commands(&admin, range, dns)? {
        let env = Env { now: MonoMs(0), wall: Clock::wall(), lot: lot(), alive: &Nobody };
        let decision = fleet.decide(&command, &env)?;
        fleet.apply(&decision);
        decisions.push(decision);
    }
    let mut ops: Vec<_> =
        decisions.iter().flat_map(|decision| &decision.changes).flat_map(records::operations).collect();
    ops.push(Ring::empty(events_kept).operation());
    disk.commit(&ops, haar_store::Fence::default(), store_fence(fleet.fence()))?;
    Ok(Bootstrap { cloud, admin })
}

/// The command that makes another admin's token, and the token.
pub(crate) fn another_admin() -> (Command, Secret) {
    let secret = Secret::random();
    let name = Name::new(format!("admin-{}", hex::encode(random::<4>())));
    let name = name.expect("letters, a dash and hex digits are a name");
    (Command::CreateToken { id: TokenId(new_id()), name, role: Role::Admin, hash: secret.hash() }, secret)
}

fn commands(admin: &Secret, range: Cidr, dns: &[std::net::IpAddr]) -> Result<Vec<Command>, FoundError> {
    let name = |text: &str| Name::new(text).map_err(Refusal::from);
    let project = Name::default_project();
    let (network, fwgroup) = (NetworkId(new_id()), FwGroupId(new_id()));
    let (gateway, end) = usable(range);
    let id = TokenId(new_id());
    let mut commands = vec![
        Command::CreateToken { id, name: name("admin")?, role: Role::Admin, hash: admin.hash() },
        Command::CreateNetwork(
            network,
            NetworkSpec {
                name: name("default")?,
                project: project.clone(),
                metadata: Default::default(),
                nat: true,
                reach: Reach::All,
            },
        ),
        Command::CreateSubnet(
            new_id().into(),
            SubnetSpec {
                name: name("default")?,
                project: project.clone(),
                metadata: Default::default(),
                network,
                cidr: range,
                gateway: Some(gateway),
                start: gateway,
                end,
                dns: dns.to_vec(),
            },
            Gateway::Said,
        ),
        Command::CreateFwGroup(
            fwgroup,
            FwGroupSpec {
                name: name("default")?,
                project: project.clone(),
                metadata: Default::default(),
                rules: rules(fwgroup),
            },
        ),
    ];
    for (text, cpu, memory, disk) in FLAVORS {
        let resources = Resources { cpu, memory: MiB(memory), disk: MiB(disk) };
        let (name, project, metadata) = (name(text)?, project.clone(), Default::default());
        let spec = FlavorSpec { name, project, metadata, image: None, resources };
        commands.push(Command::CreateFlavor(new_id().into(), spec));
    }
    Ok(commands)
}

/// ssh and ping from everywhere, everything from each other.
fn rules(own: FwGroupId) -> Vec<FwRule> {
    let rule =
        |group, protocol, ports| FwRule { source: None, group, protocol, ports, action: Action::Accept };
    vec![
        rule(None, Protocol::Icmp, None),
        rule(None, Protocol::Tcp, Some((22, 22))),
        rule(Some(own), Protocol::Any, None),
    ]
}

fn new_id() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

/// Before the first start nobody has spoken.
struct Nobody;

impl Alive for Nobody {
    fn is_alive(&self, _: HypervisorId) -> bool {
        false
    }
}
