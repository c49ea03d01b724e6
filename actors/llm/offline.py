class OfflineClient:
    pass
