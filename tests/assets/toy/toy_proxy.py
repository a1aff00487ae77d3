"""A proxy of another package: how many held-out images lie nearest to their own class's mean feature."""

from hilo_nas.errors import UsageError
from hilo_nas.proxy import Metric, Proxy
from hilo_nas.proxy.work import Prepared, Result, Work

TOY = Proxy(
    name="toy",
    version="toy-1",
    options=frozenset(
        {
            *("proxy.images", "proxy.img_size", "proxy.batch_size", "proxy.confirm"),
            *("data.val_source", "data.group_by"),
        }
    ),
    metrics=(Metric(name="toy_hits", title="hits", short="hits", is_share=True),),
    description="hits among random features of {images:,} images of {data}",
    work="toy_proxy:ToyWork",
    prepares=True,
)


class ToyWork(Work):
    def prepare(self, plan, data, device, source, emit):
        if data.num_classes < 2:
            raise UsageError("there is nothing to tell apart")
        return Prepared(facts={"classes": data.num_classes}, local={"cache": data.path})

    def score(self, job, emit):
        import torch

        from hilo_nas.models import build_subject
        from hilo_nas.proxy.batches import open_split

        torch.manual_seed(job.seed)
        model = build_subject(job.subject, 64, 3, job.plan.img_size).eval()
        split = open_split(job.data, job.plan, torch.device("cpu"))
        places = torch.from_numpy(split.places)[torch.randperm(len(split.places))[: job.plan.images]]
        with torch.no_grad():
            known, labels = self._features(model, split.images, places)
            asked, truth = self._features(model, split.val_images, torch.from_numpy(split.val_places))
        classes = range(job.prepared.facts["classes"])
        means = torch.stack([known[labels == c].mean(0) if (labels == c).any() else known.mean(0) for c in classes])
        hits = (torch.cdist(asked, means).argmin(1) == truth).double()
        error = float(hits.std() / len(hits) ** 0.5)
        return (Result(value=float(hits.mean()), standard_error=error, n_val=len(hits)),)

    @staticmethod
    def _features(model, images, places):
        pixels, labels = images.take(places)
        return model(pixels.permute(0, 3, 1, 2) / 255), labels
