//! The table of contents of the API: one row per endpoint, and the only list of them there is.
//!
//! Operation, method, path, who may ask, query, body, answer, statuses, one line about it.
//! Paths name things as `{ref}` (id or name; a PUT to it takes an id only) or, where only an id will do, as `{id}`.
//! 202 means: begun, not ended within `?wait=`; `Location` names the job.

use crate::endpoint::{
    Admin, AdminOrAgent, AgentSelf, Bytes, Endpoint, EndpointInfo, Events, Html, Nothing, Open, Stream, Text,
};
use crate::feed::{Feed, Hello, Report, ReportTaken, Welcome};
use crate::v1::*;

macro_rules! endpoints {
    ($($name:ident $operation:literal $method:ident $path:literal $permission:ident
        ($query:ty, $body:ty) -> $answer:ty [$($status:literal)+] $summary:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($method), " ", $path, "`: ", $summary)]
            #[derive(Debug, Clone, Copy)]
            pub struct $name;
            impl Endpoint for $name {
                const METHOD: &'static str = stringify!($method);
                const PATH: &'static str = $path;
                const OPERATION: &'static str = $operation;
                const SUMMARY: &'static str = $summary;
                const STATUSES: &'static [u16] = &[$($status),+];
                type Permission = $permission;
                type Query = $query;
                type Body = $body;
                type Answer = $answer;
            }
        )*

        /// Every endpoint, in the order of the table.
        pub const ENDPOINTS: &[EndpointInfo] = &[$(EndpointInfo::of::<$name>()),*];
    };
}

#[rustfmt::skip]
endpoints! {
    // Open to all.
    Healthz            "healthz"            GET    "/healthz"                        Open (NoQuery, Nothing) -> Text [200] "Whether the process answers.";
    Readyz             "readyz"             GET    "/readyz"                         Open (NoQuery, Nothing) -> Text [200] "Whether it takes changes.";
    Metrics            "metrics"            GET    "/metrics"                        Open (NoQuery, Nothing) -> Text [200] "Numbers, in Prometheus' text form.";
    OpenApi            "openapi"            GET    "/openapi.json"                   Open (NoQuery, Nothing) -> serde_json::Value [200] "This document.";
    Page               "page"               GET    "/"                               Open (NoQuery, Nothing) -> Html [200] "A page that says what this is.";

    // The cloud as a whole.
    Whoami             "whoami"             GET    "/v1/whoami"                      AdminOrAgent (NoQuery, Nothing) -> WhoamiView [200] "Who the caller is.";
    Status             "status"             GET    "/v1/status"                      Admin (NoQuery, Nothing) -> StatusView [200] "The cloud at a glance.";
    Capacity           "capacity"           GET    "/v1/capacity"                    Admin (NoQuery, Nothing) -> CapacityView [200] "What there is, what is promised, what is left.";
    Check              "check"              GET    "/v1/check"                       Admin (NoQuery, Nothing) -> CheckView [200] "Checks the books and lists every fault.";
    Candidates         "candidates"         POST   "/v1/candidates"                  Admin (NoQuery, GuestCreate) -> CandidatesView [200] "Where a guest could be placed; nothing is reserved.";
    EventStream        "events"             GET    "/v1/events"                      Admin (EventsQuery, Nothing) -> Events [200] "What changes, as server-sent events.";
    ConfigShow         "config_show"        GET    "/v1/config"                      Admin (NoQuery, Nothing) -> ConfigView [200] "Cluster settings.";
    ConfigSet          "config_set"         PATCH  "/v1/config"                      Admin (NoQuery, ConfigPatch) -> ConfigView [200] "Changes cluster settings.";

    // Hypervisors.
    HypervisorList     "hypervisor_list"    GET    "/v1/hypervisors"                 Admin (ListQuery, Nothing) -> List<HypervisorView> [200] "Hypervisors in id order.";
    HypervisorPost     "hypervisor_post"    POST   "/v1/hypervisors"                 Admin (NoQuery, HypervisorCreate) -> HypervisorView [201] "Makes a hypervisor; the server picks the id.";
    HypervisorShow     "hypervisor_show"    GET    "/v1/hypervisors/{ref}"           Admin (RefQuery, Nothing) -> HypervisorView [200] "One hypervisor.";
    HypervisorPut      "hypervisor_put"     PUT    "/v1/hypervisors/{ref}"           Admin (NoQuery, HypervisorCreate) -> HypervisorView [200 201] "Makes a hypervisor with this id; the same twice changes nothing.";
    HypervisorSet      "hypervisor_set"     PATCH  "/v1/hypervisors/{ref}"           Admin (RefQuery, HypervisorPatch) -> HypervisorView [200] "Changes a hypervisor.";
    HypervisorDelete   "hypervisor_delete"  DELETE "/v1/hypervisors/{ref}"           Admin (RefQuery, Nothing) -> Nothing [204] "Removes a hypervisor that holds no guests.";
    HypervisorLost     "hypervisor_lost"    POST   "/v1/hypervisors/{ref}/lost"      Admin (RefQuery, Nothing) -> HypervisorView [200] "An operator's word: this machine is dead, and what it holds is gone.";

    // Flavors.
    FlavorList         "flavor_list"        GET    "/v1/flavors"                     Admin (ListQuery, Nothing) -> List<FlavorView> [200] "Flavors in id order.";
    FlavorPost         "flavor_post"        POST   "/v1/flavors"                     Admin (NoQuery, FlavorCreate) -> FlavorView [201] "Makes a flavor; the server picks the id.";
    FlavorShow         "flavor_show"        GET    "/v1/flavors/{ref}"               Admin (RefQuery, Nothing) -> FlavorView [200] "One flavor.";
    FlavorPut          "flavor_put"         PUT    "/v1/flavors/{ref}"               Admin (NoQuery, FlavorCreate) -> FlavorView [200 201] "Makes a flavor with this id; the same twice changes nothing.";
    FlavorSet          "flavor_set"         PATCH  "/v1/flavors/{ref}"               Admin (RefQuery, FlavorPatch) -> FlavorView [200] "Changes a flavor; its guests keep what they have.";
    FlavorDelete       "flavor_delete"      DELETE "/v1/flavors/{ref}"               Admin (RefQuery, Nothing) -> Nothing [204] "Removes a flavor that no guest has.";

    // Images.
    ImageList          "image_list"         GET    "/v1/images"                      Admin (ListQuery, Nothing) -> List<ImageView> [200] "Images in id order.";
    ImagePost          "image_post"         POST   "/v1/images"                      Admin (NoQuery, ImageCreate) -> ImageView [201] "Makes an image; the server picks the id.";
    ImageShow          "image_show"         GET    "/v1/images/{ref}"                Admin (RefQuery, Nothing) -> ImageView [200] "One image.";
    ImagePut           "image_put"          PUT    "/v1/images/{ref}"                Admin (NoQuery, ImageCreate) -> ImageView [200 201] "Makes an image with this id; the same twice changes nothing.";
    ImageSet           "image_set"          PATCH  "/v1/images/{ref}"                Admin (RefQuery, ImagePatch) -> ImageView [200] "Changes an image's name or labels.";
    ImageDelete        "image_delete"       DELETE "/v1/images/{ref}"                Admin (RefQuery, Nothing) -> Nothing [204] "Removes an image that nothing names.";
    ImageUpload        "image_upload"       PUT    "/v1/images/{ref}/data"           Admin (UploadQuery, Bytes) -> ImageView [200] "The image's bytes; hashed as they come.";
    ImageDownload      "image_download"     GET    "/v1/images/{ref}/data"           Admin (RefQuery, Nothing) -> Bytes [200] "The bytes of an uploaded image.";

    // Networks and subnets.
    NetworkList        "network_list"       GET    "/v1/networks"                    Admin (ListQuery, Nothing) -> List<NetworkView> [200] "Networks in id order.";
    NetworkPost        "network_post"       POST   "/v1/networks"                    Admin (NoQuery, NetworkCreate) -> NetworkView [201] "Makes a network; the server picks the id.";
    NetworkShow        "network_show"       GET    "/v1/networks/{ref}"              Admin (RefQuery, Nothing) -> NetworkView [200] "One network.";
    NetworkPut         "network_put"        PUT    "/v1/networks/{ref}"              Admin (NoQuery, NetworkCreate) -> NetworkView [200 201] "Makes a network with this id; the same twice changes nothing.";
    NetworkSet         "network_set"        PATCH  "/v1/networks/{ref}"              Admin (RefQuery, NetworkPatch) -> NetworkView [200] "Changes a network.";
    NetworkDelete      "network_delete"     DELETE "/v1/networks/{ref}"              Admin (RefQuery, Nothing) -> Nothing [204] "Removes a network without subnets and guests.";
    SubnetList         "subnet_list"        GET    "/v1/subnets"                     Admin (SubnetListQuery, Nothing) -> List<SubnetView> [200] "Subnets in id order.";
    SubnetPost         "subnet_post"        POST   "/v1/subnets"                     Admin (NoQuery, SubnetCreate) -> SubnetView [201] "Makes a subnet; the server picks the id.";
    SubnetShow         "subnet_show"        GET    "/v1/subnets/{ref}"               Admin (RefQuery, Nothing) -> SubnetView [200] "One subnet.";
    SubnetPut          "subnet_put"         PUT    "/v1/subnets/{ref}"               Admin (NoQuery, SubnetCreate) -> SubnetView [200 201] "Makes a subnet with this id; the same twice changes nothing.";
    SubnetSet          "subnet_set"         PATCH  "/v1/subnets/{ref}"               Admin (RefQuery, SubnetPatch) -> SubnetView [200] "Changes a subnet; addresses in use must stay inside.";
    SubnetDelete       "subnet_delete"      DELETE "/v1/subnets/{ref}"               Admin (RefQuery, Nothing) -> Nothing [204] "Removes a subnet whose addresses are all free.";

    // Firewall groups.
    FwGroupList        "fwgroup_list"       GET    "/v1/fwgroups"                    Admin (ListQuery, Nothing) -> List<FwGroupView> [200] "Firewall groups in id order.";
    FwGroupPost        "fwgroup_post"       POST   "/v1/fwgroups"                    Admin (NoQuery, FwGroupCreate) -> FwGroupView [201] "Makes a firewall group; the server picks the id.";
    FwGroupShow        "fwgroup_show"       GET    "/v1/fwgroups/{ref}"              Admin (RefQuery, Nothing) -> FwGroupView [200] "One firewall group.";
    FwGroupPut         "fwgroup_put"        PUT    "/v1/fwgroups/{ref}"              Admin (NoQuery, FwGroupCreate) -> FwGroupView [200 201] "Makes a firewall group with this id; the same twice changes nothing.";
    FwGroupSet         "fwgroup_set"        PATCH  "/v1/fwgroups/{ref}"              Admin (RefQuery, FwGroupPatch) -> FwGroupView [200] "Changes a firewall group.";
    FwGroupDelete      "fwgroup_delete"     DELETE "/v1/fwgroups/{ref}"              Admin (RefQuery, Nothing) -> Nothing [204] "Removes a firewall group that nothing names.";

    // Guests.
    GuestList          "guest_list"         GET    "/v1/guests"                      Admin (GuestListQuery, Nothing) -> List<GuestView> [200] "Guests in id order.";
    GuestPost          "guest_post"         POST   "/v1/guests"                      Admin (WaitQuery, GuestCreate) -> GuestView [201 202] "Places, makes and starts a guest; the server picks the id.";
    GuestShow          "guest_show"         GET    "/v1/guests/{ref}"                Admin (RefQuery, Nothing) -> GuestView [200] "One guest.";
    GuestPut           "guest_put"          PUT    "/v1/guests/{ref}"                Admin (WaitQuery, GuestCreate) -> GuestView [200 201 202] "Places, makes and starts a guest with this id; the same twice is the same guest.";
    GuestSet           "guest_set"          PATCH  "/v1/guests/{ref}"                Admin (RefQuery, GuestPatch) -> GuestView [200] "Changes what of a guest may change while it lives.";
    GuestDelete        "guest_delete"       DELETE "/v1/guests/{ref}"                Admin (RefWaitQuery, Nothing) -> JobView [200 202 204] "Stops and removes a guest with its disks; answers the job, or nothing when it held nothing.";
    GuestStart         "guest_start"        POST   "/v1/guests/{ref}/start"          Admin (RefWaitQuery, Nothing) -> GuestView [200 202] "Starts a guest.";
    GuestShutdown      "guest_shutdown"     POST   "/v1/guests/{ref}/shutdown"       Admin (RefWaitQuery, Nothing) -> GuestView [200 202] "Asks a guest to power off.";
    GuestPoweroff      "guest_poweroff"     POST   "/v1/guests/{ref}/poweroff"       Admin (RefWaitQuery, Nothing) -> GuestView [200 202] "Cuts a guest's power.";
    GuestReboot        "guest_reboot"       POST   "/v1/guests/{ref}/reboot"         Admin (RefWaitQuery, Nothing) -> GuestView [200 202] "Asks a guest to reboot.";
    GuestRecreate      "guest_recreate"     POST   "/v1/guests/{ref}/recreate"       Admin (RefWaitQuery, Nothing) -> GuestView [200 202] "Makes a lost guest anew from its image.";
    GuestAdopt         "guest_adopt"        POST   "/v1/guests/{ref}/adopt"          Admin (RefWaitQuery, Nothing) -> GuestView [200 202] "Takes over a guest found on a host after a restore.";
    GuestLog           "guest_log"          GET    "/v1/guests/{ref}/log"            Admin (LogQuery, Nothing) -> Text [200] "What the guest wrote to its serial console.";
    GuestConsole       "guest_console"      GET    "/v1/guests/{ref}/console"        Admin (RefQuery, Nothing) -> Stream [101] "The guest's serial console, both ways.";

    // Jobs.
    JobList            "job_list"           GET    "/v1/jobs"                        Admin (JobListQuery, Nothing) -> List<JobView> [200] "Jobs in id order.";
    JobShow            "job_show"           GET    "/v1/jobs/{id}"                   Admin (WaitQuery, Nothing) -> JobView [200] "One job; with `?wait=`, once it has ended or the time is over.";
    JobRetry           "job_retry"          POST   "/v1/jobs/{id}/retry"             Admin (WaitQuery, Nothing) -> JobView [200 202] "Tries a failed job again; answers the new job.";

    // Tokens.
    TokenList          "token_list"         GET    "/v1/tokens"                      Admin (ListQuery, Nothing) -> List<TokenView> [200] "Tokens in id order, without their secrets.";
    TokenPost          "token_post"         POST   "/v1/tokens"                      Admin (NoQuery, TokenCreate) -> TokenCreated [201] "Makes a token; the only answer that has its secret.";
    TokenShow          "token_show"         GET    "/v1/tokens/{ref}"                Admin (RefQuery, Nothing) -> TokenView [200] "One token.";
    TokenDelete        "token_delete"       DELETE "/v1/tokens/{ref}"                Admin (RefQuery, Nothing) -> Nothing [204] "Removes a token; its bearer is refused from then on.";

    // For agents.
    AgentHello         "agent_hello"        POST   "/v1/agent/hello"                 AgentSelf (NoQuery, Hello) -> Welcome [200] "An agent with a new ledger joins.";
    AgentFeed          "agent_feed"         GET    "/v1/agent/feed"                  AgentSelf (FeedQuery, Nothing) -> Feed [200 204] "The hypervisor's whole desired set, once it is newer than `?since=`.";
    AgentReport        "agent_report"       POST   "/v1/agent/report"                AgentSelf (NoQuery, Report) -> ReportTaken [200] "What the hypervisor has.";
    AgentBlob          "agent_blob"         GET    "/v1/agent/blobs/{sha256}"        AgentSelf (NoQuery, Nothing) -> Bytes [200] "The user-data of one of its guests.";
    AgentImage         "agent_image"        GET    "/v1/agent/images/{id}/data"      AgentSelf (NoQuery, Nothing) -> Bytes [200] "The bytes of an image.";
    AgentStream        "agent_stream"       GET    "/v1/agent/streams/{ticket}"      AgentSelf (NoQuery, Nothing) -> Stream [101] "The agent's end of a stream somebody waits for.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::endpoint::{Access, Media};

    #[test]
    fn every_row_is_its_own() {
        let routes: BTreeSet<_> = ENDPOINTS.iter().map(|row| (row.method, row.path)).collect();
        let operations: BTreeSet<_> = ENDPOINTS.iter().map(|row| row.operation).collect();
        assert_eq!(routes.len(), ENDPOINTS.len());
        assert_eq!(operations.len(), ENDPOINTS.len());
    }

    #[test]
    fn nothing_but_the_open_pages_goes_without_a_token() {
        for row in ENDPOINTS {
            assert_eq!(row.access == Access::Open, !row.path.starts_with("/v1/"), "{}", row.path);
            assert_eq!(row.access == Access::AgentSelf, row.path.starts_with("/v1/agent/"), "{}", row.path);
        }
    }

    #[test]
    fn a_get_and_a_delete_have_no_body() {
        for row in ENDPOINTS.iter().filter(|row| matches!(row.method, "GET" | "DELETE")) {
            assert_eq!(row.body, Media::Nothing, "{}", row.operation);
        }
    }
}
