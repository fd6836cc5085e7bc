"""Cinder's disks, pretended: a volume is a row in the database and nothing else."""
from cinder.volume import driver


class NoVolumeDriver(driver.VolumeDriver):
    """Says yes to everything and stores nothing."""

    VERSION = '1.0'

    def check_for_setup_error(self):
        """There is nothing that could be wrong."""

    def _update_volume_stats(self):
        self._stats = dict(
            volume_backend_name=self.configuration.safe_get('volume_backend_name'),
            vendor_name='none', driver_version=self.VERSION, storage_protocol='none',
            total_capacity_gb=10000, free_capacity_gb=10000, reserved_percentage=0,
            QoS_support=False, multiattach=False)

    def clone_image(self, context, volume, image_location, image_meta, image_service):
        """True keeps Cinder from copying the image into a disk that is not there."""
        return {}, True

    def initialize_connection(self, volume, connector, **kwargs):
        return {'driver_volume_type': 'none', 'data': {'volume_id': volume.id}}

    def _yes(self, *args, **kwargs):
        return None

    create_volume = create_cloned_volume = create_volume_from_snapshot = extend_volume = _yes
    delete_volume = create_snapshot = delete_snapshot = _yes
    ensure_export = create_export = remove_export = terminate_connection = _yes
