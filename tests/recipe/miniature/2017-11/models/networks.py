def define_G(netG, gpu_ids):
    if len(gpu_ids) > 0:
        netG.cuda(device_id=gpu_ids[0])
    return netG


def define_D(netD, gpu_ids):
    if len(gpu_ids) > 0:
        netD.cuda(device_id=gpu_ids[0])
    return netD
