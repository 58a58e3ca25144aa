try:
    from torch.hub import _download_url_to_file
except ImportError:
    from torch.utils.model_zoo import _download_url_to_file
