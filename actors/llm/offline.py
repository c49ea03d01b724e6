class OfflineClient: pass
