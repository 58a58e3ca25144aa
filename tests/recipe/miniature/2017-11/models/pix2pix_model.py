from models.base_model import BaseModel


class Pix2PixModel(BaseModel):
    def keep(self, losses):
        self.loss_G_GAN, self.loss_G_L1, self.loss_D_real, self.loss_D_fake = losses

    def get_current_errors(self, losses):
        self.keep(losses)
        return [self.loss_G_GAN.data[0],
                self.loss_G_L1.data[0],
                self.loss_D_real.data[0],
                self.loss_D_fake.data[0]]
