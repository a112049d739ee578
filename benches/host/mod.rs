//! A made-up host: instance `n` has one VIF, and all ids, names and addresses follow from `n`.

use uuid::Uuid;

/// What libvirt says about a domain of Nova's that runs on a hypervisor of the type `kind`.
pub fn domain_xml(kind: &str, n: u32) -> String {
    include_str!("nova_domain.xml")
        .replace("@KIND@", kind)
        .replace("@NUMBER@", &n.to_string())
        .replace("@NAME@", &format!("instance-{n:08x}"))
        .replace("@UUID@", &instance_uuid(n).to_string())
        .replace("@PORT@", &port_uuid(n).to_string())
        .replace("@ADDRESS@", &format!("10.0.{}.{}", n / 250, n % 250 + 3))
        .replace("@MAC@", &mac(n))
        .replace("@TARGET@", &device("tap", n))
}

pub fn instance_uuid(n: u32) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("instance {n}").as_bytes())
}

pub fn port_uuid(n: u32) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("port {n}").as_bytes())
}

/// The name of a device that Neutron made for the port: `tap`, `qvb` … and the first 11 characters of the port's id.
pub fn device(prefix: &str, n: u32) -> String {
    format!("{prefix}{}", &port_uuid(n).to_string()[..11])
}

pub fn mac(n: u32) -> String {
    format!("fa:16:3e:00:{:02x}:{:02x}", n / 256, n % 256)
}
